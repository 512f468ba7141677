"""capcsim runs and simulates CaPC, confidential and private collaborative learning (ICLR 2021).

Importing it is fast and loads no cryptography and no learning library. The rooms, in the order in
which data passes through them: scenario, learning, protocol (over a backend, twoparty and crypto),
simulation, record, report.
"""

__version__ = "0.1.0"
