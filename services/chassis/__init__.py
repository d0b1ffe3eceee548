"""What every gRPC process of Baton needs. Nothing here knows a word of any context."""
