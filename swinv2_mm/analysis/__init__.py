"""Looking at models: what they cost, what they have learnt and how they train."""
