"""What people see of a run: what it is, how far it is, its curves in other programs."""

NO_FLIP = "without the flip test"  # as trainings, searches and studies take an AP; eval's default is with it
