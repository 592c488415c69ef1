"""Training and scoring of models outside of an agent."""
