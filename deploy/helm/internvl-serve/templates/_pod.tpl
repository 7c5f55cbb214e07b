{{/*
The one pod: of the Deployment, and of leaders and workers of a LeaderWorkerSet.
Takes a dict of root (the top context) and role (server or worker). A worker serves no HTTP.
*/}}
{{- define "internvl.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $serves := eq .role "server" -}}
metadata:
  labels:
    {{- /* No versions here: a new chart must not restart pods that are what they were. */}}
    {{- include "internvl.selectorLabels" $root | nindent 4 }}
    llm-d.ai/engine-type: vllm
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "internvl.serviceAccountName" $root | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "internvl.terminationSeconds" $root }}
  securityContext:
    {{- toYaml $values.podSecurityContext | nindent 4 }}
  {{- with $values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.runtimeClassName }}
  runtimeClassName: {{ . | quote }}
  {{- end }}
  {{- with $values.priorityClassName }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- if eq $values.model.source "download" }}
  initContainers:
    {{- include "internvl.waitForModel" $root | nindent 4 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "internvl.image" $root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy | quote }}
      args:
        {{- include "internvl.arguments" $root | nindent 8 }}
      env:
        {{- include "internvl.environment" $root | trim | nindent 8 }}
      {{- with $values.envFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if $serves }}
      ports:
        - {name: http, containerPort: 8000, protocol: TCP}
        {{- with $values.opsPort }}
        - {name: ops, containerPort: {{ . }}, protocol: TCP}
        {{- end }}
      startupProbe:
        httpGet: {path: /readyz, port: http}
        {{- toYaml $values.probes.startup | nindent 8 }}
      readinessProbe:
        httpGet: {path: /readyz, port: http}
        {{- toYaml $values.probes.readiness | nindent 8 }}
      livenessProbe:
        httpGet: {path: /livez, port: http}
        {{- toYaml $values.probes.liveness | nindent 8 }}
      {{- end }}
      resources:
        {{- include "internvl.resources" $root | nindent 8 }}
      securityContext:
        {{- include "internvl.containerSecurity" $root | nindent 8 }}
      volumeMounts:
        {{- include "internvl.mounts" $root | nindent 8 }}
  volumes:
    {{- include "internvl.volumes" $root | nindent 4 }}
  {{- with include "internvl.placement" $root }}
  {{- trim . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* Names are unique in a LeaderWorkerSet, so an entry of the values takes the place of ours. */}}
{{- define "internvl.environment" -}}
{{- $given := list -}}
{{- range .Values.env }}{{- $given = append $given .name }}{{- end -}}
{{- $own := list (list "INTERNVL_SERVE_LOG_FORMAT" "json") (list "HOME" "/cache") (list "HF_HUB_OFFLINE" "1") -}}
{{- if gt (int .Values.parallel.nodes) 1 -}}
{{- $own = append $own (list "NCCL_SOCKET_IFNAME" "^lo,docker") -}}
{{- end -}}
{{- range $own }}
{{- if not (has (first .) $given) }}
- {name: {{ first . }}, value: {{ last . | quote }}}
{{- end }}
{{- end }}
{{- with .Values.env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "internvl.containerSecurity" -}}
{{- $security := deepCopy .Values.securityContext -}}
{{- if and .Values.leaderWorkerSet.rdma (gt (int .Values.parallel.nodes) 1) -}}
{{- $capabilities := dict "drop" (list "ALL") "add" (list "IPC_LOCK") -}}
{{- $_ := set $security "capabilities" $capabilities -}}
{{- end -}}
{{ toYaml $security }}
{{- end -}}

{{- define "internvl.resources" -}}
{{- $resources := deepCopy .Values.resources -}}
{{- $gpus := include "internvl.gpusPerPod" . -}}
{{- if ne $gpus "0" -}}
{{- if eq .Values.accelerator.mode "dra" -}}
{{- $_ := set $resources "claims" (list (dict "name" "gpus")) -}}
{{- else -}}
{{- $gpu := dict (include "internvl.gpuResource" .) $gpus -}}
{{- $_ := set $resources "requests" (merge (dict) $gpu ($resources.requests | default dict)) -}}
{{- $_ := set $resources "limits" (merge (dict) $gpu ($resources.limits | default dict)) -}}
{{- end -}}
{{- end -}}
{{ toYaml $resources }}
{{- end -}}
