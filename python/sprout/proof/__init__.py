# SPDX-License-Identifier: Apache-2.0
"""What was saved, and how sure that is: mathematics without I/O."""
