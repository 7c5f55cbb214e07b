{{/*
What the schema cannot say: combinations that would be installed and never work. Most impossible
combinations have no values to write them with: GPUs of a pod, its grace period and the kind of the
workload are computed.
*/}}
{{- define "internvl.validate" -}}
{{- $v := .Values -}}
{{- $p := $v.parallel -}}
{{- $ranks := mul $p.tensor $p.pipeline | int -}}
{{- if mod $ranks (int $p.nodes) -}}
{{- fail (printf "parallel: tensor x pipeline is %d GPUs, which %d nodes cannot share evenly; make it a multiple of parallel.nodes" $ranks (int $p.nodes)) -}}
{{- end -}}
{{- range list $v.resources.requests $v.resources.limits -}}
{{- if hasKey (. | default dict) (include "internvl.gpuResource" $) -}}
{{- fail (printf "resources: leave %s out; the chart asks for parallel.tensor x parallel.pipeline / parallel.nodes of them" (include "internvl.gpuResource" $)) -}}
{{- end -}}
{{- end -}}
{{- $m := $v.model -}}
{{- if and (eq $m.source "pvc") (not $m.pvc.existingClaim) -}}
{{- fail "model.pvc.existingClaim: name the claim that holds the checkpoint, or choose another model.source" -}}
{{- end -}}
{{- if and (eq $m.source "hostPath") (not $m.hostPath.path) -}}
{{- fail "model.hostPath.path: name the folder that holds the checkpoint, or choose another model.source" -}}
{{- end -}}
{{- if and (eq $m.source "image") (not (contains "@sha256:" $m.image.reference)) -}}
{{- fail "model.image.reference: name the image by digest (repository@sha256:...); a tag may change under running pods" -}}
{{- end -}}
{{- if and (eq $m.source "image") (semverCompare "<1.33.0-0" .Capabilities.KubeVersion.Version) -}}
{{- fail (printf "model.source: image volumes need Kubernetes 1.33, this is %s; use pvc or download" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and (eq $m.source "demo") (gt $ranks 1) (ne $v.accelerator.type "cpu") -}}
{{- fail "model.source: demo is a tiny checkpoint for one GPU; set parallel to 1 or choose another model.source" -}}
{{- end -}}
{{- if and (eq $v.accelerator.type "amd") (not (or $v.image.tag $v.image.digest)) -}}
{{- fail "accelerator.type: there is no image for amd; name one of your own by image.tag or image.digest" -}}
{{- end -}}
{{- if eq $v.accelerator.mode "dra" -}}
{{- if eq $v.accelerator.type "cpu" -}}
{{- fail "accelerator.mode: dra claims GPUs; with accelerator.type cpu use devicePlugin" -}}
{{- end -}}
{{- if semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "accelerator.mode: dra needs Kubernetes 1.34, this is %s; use devicePlugin" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString $v.strategy.maxSurge) "0") (eq (toString $v.strategy.maxUnavailable) "0") -}}
{{- fail "strategy: maxSurge and maxUnavailable cannot both be 0, no update would ever happen" -}}
{{- end -}}
{{- if and (ne $v.autoscaling.kind "none") (gt (int $v.autoscaling.minReplicas) (int $v.autoscaling.maxReplicas)) -}}
{{- fail "autoscaling: minReplicas is above maxReplicas" -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- fail "httpRoute.parentRefs: name the gateway that the route belongs to" -}}
{{- end -}}
{{- if and $v.ingress.enabled (not $v.ingress.hosts) -}}
{{- fail "ingress.hosts: name at least one host" -}}
{{- end -}}
{{- if $v.inferencePool.enabled -}}
{{- if not $v.inferencePool.endpointPicker.name -}}
{{- fail "inferencePool.endpointPicker.name: name the service of the endpoint picker" -}}
{{- end -}}
{{- if $v.opsPort -}}
{{- fail "opsPort: an endpoint picker reads /metrics on the port of the requests; leave opsPort out with inferencePool" -}}
{{- end -}}
{{- if eq (toString ($v.settings | default dict).vllm_metrics) "false" -}}
{{- fail "inferencePool: an endpoint picker reads metrics by vLLM's names; leave settings.vllm_metrics true" -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int $p.nodes) 1) (eq (int $p.masterPort) 8000) -}}
{{- fail "parallel.masterPort: 8000 is taken by the requests; choose another" -}}
{{- end -}}
{{- if and (gt (int $p.nodes) 1) (hasSuffix "%" (toString $v.podDisruptionBudget.maxUnavailable)) -}}
{{- fail "podDisruptionBudget.maxUnavailable: a share would be one of pods, and each eviction ends a group; give a number of groups" -}}
{{- end -}}
{{- if has (int ($v.opsPort | default 0)) (list 8000 (int $p.masterPort)) -}}
{{- fail "opsPort: 8000 and parallel.masterPort are taken; choose another" -}}
{{- end -}}
{{- end -}}
