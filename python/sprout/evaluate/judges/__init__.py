# SPDX-License-Identifier: Apache-2.0
"""Who says which answer is better: judges of equal rank."""
