"""All SQL of the dispatcher: deliveries, attempts, receivers, and the position of intake."""
