"""What tests share: a real server, a second client, faults."""
