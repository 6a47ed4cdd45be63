"""The API other parties reach: envelopes in, receipts out, its own port."""
