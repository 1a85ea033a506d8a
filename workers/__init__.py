"""From seeds to points: batched training, stationary points, classification. Pure torch and numpy."""
