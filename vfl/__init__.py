"""Privacy-preserving vertical federated learning: two organisations train one model on ciphertexts.

Five minutes, top to bottom:

- `job` - the agreement both sides run under, frozen and digested.
- `messages`, `routes` - everything that may ever leave a party, to whom, and what it tells.
- `flow` - a protocol role is a generator of Send, Receive and Report; `run_together` runs roles in memory.
- `protocols` - one page per protocol: `split_training` in clear, `ckks_training` on ciphertexts.
- `kinds` - the kinds of job by name: what each reads, plans, sends and runs.

Importing this package loads neither torch nor an encryption library.
"""
