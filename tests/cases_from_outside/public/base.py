"""What the bug adapters share: the right adapter `bridge`, with something patched on the bridge of each subject."""

from __future__ import annotations
import copy
import os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from verifier_bridge.verifier_adapter import BridgeAdapter, BridgeSubject
from verifier_bridge.bridge import Bridge
from verifier.adapter import AdapterRefusal
from verifier_bridge.errors import BridgeRefusal


class Base:
    name = "base"
    version = "0"
    bridge_class = Bridge
    subject_class = BridgeSubject

    def wrap(self, model):
        try:
            return self.subject_class(self.bridge_class(model))
        except BridgeRefusal as refusal:
            raise AdapterRefusal(str(refusal)) from refusal
