//! The stories a user would recognise, as examples: see `profiles/`.
