# SPDX-License-Identifier: Apache-2.0
"""From judgments to q and how sure it is: mathematics, no I/O."""
