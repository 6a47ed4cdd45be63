"""What passes between two parties: envelopes, control messages, the outbox that sends them, and HTTP."""
