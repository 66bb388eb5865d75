"""Ray's provider of nodes that are processes, some types of which cannot be had."""

from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import TAG_RAY_USER_NODE_TYPE


class Provider(FakeMultiNodeProvider):
    def create_node_with_resources_and_labels(self, node_config, tags, count, resources, labels):
        kind = tags[TAG_RAY_USER_NODE_TYPE]
        if kind in self.provider_config["fails"]:  # as AWS's provider tells it: the older autoscaler remembers it of no other exception
            raise NodeLaunchException("InsufficientInstanceCapacity", f"no {kind} to be had", None)
        return super().create_node_with_resources_and_labels(node_config, tags, count, resources, labels)
