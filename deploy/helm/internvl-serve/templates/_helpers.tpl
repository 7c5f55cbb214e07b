{{/* Names, labels, and what several templates compute alike. */}}

{{- define "internvl.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 52 characters leave room for the suffixes that controllers add to names of pods. */}}
{{- define "internvl.fullname" -}}
{{- $name := include "internvl.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- .Values.fullnameOverride | default $full | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "internvl.selectorLabels" -}}
app.kubernetes.io/name: {{ include "internvl.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Selectors are immutable, so versions and the user's labels are here only. */}}
{{- define "internvl.labels" -}}
app.kubernetes.io/name: {{ include "internvl.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (replace "+" "_" .Chart.Version) | quote }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Pods that answer requests: of a group, the leader alone. */}}
{{- define "internvl.servingLabels" -}}
{{ include "internvl.selectorLabels" . }}
{{- if gt (int .Values.parallel.nodes) 1 }}
leaderworkerset.sigs.k8s.io/worker-index: "0"
{{- end }}
{{- end -}}

{{- define "internvl.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "internvl.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "internvl.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{- $build := eq .Values.accelerator.type "cpu" | ternary "cpu" "cuda" -}}
{{ $image.repository }}:{{ $image.tag | default (printf "%s-%s" .Chart.AppVersion $build) }}
{{- end -}}
{{- end -}}

{{/* Never a value of its own: it is what the sharing of the model needs. */}}
{{- define "internvl.gpusPerPod" -}}
{{- if eq .Values.accelerator.type "cpu" -}}0
{{- else -}}
{{- div (mul .Values.parallel.tensor .Values.parallel.pipeline) .Values.parallel.nodes -}}
{{- end -}}
{{- end -}}

{{- define "internvl.gpuResource" -}}
{{- $usual := eq .Values.accelerator.type "amd" | ternary "amd.com/gpu" "nvidia.com/gpu" -}}
{{- .Values.accelerator.resourceName | default $usual -}}
{{- end -}}

{{- define "internvl.workloadKind" -}}
{{- gt (int .Values.parallel.nodes) 1 | ternary "LeaderWorkerSet" "Deployment" -}}
{{- end -}}

{{- define "internvl.workloadApi" -}}
{{- gt (int .Values.parallel.nodes) 1 | ternary "leaderworkerset.x-k8s.io/v1" "apps/v1" -}}
{{- end -}}

{{/*
Kubernetes kills at the end of this, so it is longer than all that the daemon waits for. API
processes end first and then ranks, each within shutdown_timeout_s, 5 seconds by default.
*/}}
{{- define "internvl.terminationSeconds" -}}
{{- $end := (.Values.settings | default dict).shutdown_timeout_s | default 5 | mulf 2 | ceil -}}
{{- with .Values.drain -}}
{{- add .graceSeconds .timeoutSeconds $end .marginSeconds -}}
{{- end -}}
{{- end -}}

{{- define "internvl.progressDeadlineSeconds" -}}
{{- add 60 (mul .Values.probes.startup.periodSeconds .Values.probes.startup.failureThreshold) -}}
{{- end -}}

{{- define "internvl.metricsPort" -}}
{{- empty .Values.opsPort | ternary "http" "ops" -}}
{{- end -}}
