"""What off-policy agents share: the algorithm, learners, collection, recurrence, persistence."""
