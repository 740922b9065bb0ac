# SPDX-License-Identifier: Apache-2.0
"""What each level costs in quality: real prompts, answered at every level, judged, off the request
path and when the grid is clean."""
