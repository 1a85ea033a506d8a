"""From a sweep file to committed tables: specification, plan, policy, Ray, store, tracking."""
