"""What a proxy keeps on its disk: the spool of usage events and the slots of requests in flight."""
