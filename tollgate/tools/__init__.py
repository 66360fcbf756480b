"""What a lab or an operator tries things out with: a mock upstream, a receiver."""
