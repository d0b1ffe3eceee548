"""Who calls Baton and what they may do: agents and the tokens they call with."""
