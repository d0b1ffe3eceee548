"""Messages to models and back; one module per noun."""
