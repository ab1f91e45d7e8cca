"""What clients do, as conversations with the service: generators of steps, the same for either kind of client."""
