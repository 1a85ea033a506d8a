"""Models as pure functions of their flat parameters θ, and the landscapes that they span on data."""
