"""What is measured at a point beyond its curvature: flatness, sensitivity, norms and margins."""
