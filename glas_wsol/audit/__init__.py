# Copyright (c) the glas_wsol authors. SPDX-License-Identifier: Apache-2.0
"""What a config would run: its components and expressions against lists of what is known to be harmless."""

from glas_wsol.audit.configs import Finding, audit, audit_config, audit_content, plain_data_faults

__all__ = ["Finding", "audit", "audit_config", "audit_content", "plain_data_faults"]
