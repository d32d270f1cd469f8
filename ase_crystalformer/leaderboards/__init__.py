"""What trained runs say of test sets, in the formats that public leaderboards take."""
