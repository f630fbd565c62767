"""Students that learn full's distribution: healed slims and distilled drafts."""
