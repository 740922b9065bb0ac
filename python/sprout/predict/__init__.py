# SPDX-License-Identifier: Apache-2.0
"""What a prompt's text says of each level's preference and energy: fitted, checked, kept."""
