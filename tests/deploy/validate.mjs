// Reads manifests as a JSON array, validates each by its model, prints how many there were.
import { readFileSync } from "node:fs";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import { ScaledObject } from "@kubernetes-models/keda/keda.sh/v1alpha1/ScaledObject";
import { PodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import { PrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";

const models = { HTTPRoute, ScaledObject, PodMonitor, PrometheusRule };
const manifests = JSON.parse(readFileSync(0, "utf8"));
for (const manifest of manifests) new models[manifest.kind](manifest).validate();
console.log(manifests.length);
