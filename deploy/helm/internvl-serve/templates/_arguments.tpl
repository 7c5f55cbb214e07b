{{/* Arguments of the daemon. It refuses what it does not know, so that a mistake is seen at once. */}}

{{- define "internvl.arguments" -}}
- serve
- --host=0.0.0.0
- --port=8000
- --device={{ eq .Values.accelerator.type "cpu" | ternary "cpu" "cuda" }}
{{- with include "internvl.modelFolder" . }}
- {{ printf "--model=%s" . | quote }}
{{- end }}
{{- range .Values.model.servedNames }}
- {{ printf "--served-model-name=%s" . | quote }}
{{- end }}
{{- with .Values.parallel }}
- --tensor-parallel-size={{ .tensor }}
{{- if gt (int .pipeline) 1 }}
- --pipeline-parallel-size={{ .pipeline }}
{{- end }}
{{- if gt (int .nodes) 1 }}
- --nnodes=$(LWS_GROUP_SIZE)
- --node-rank=$(LWS_WORKER_INDEX)
- --master-addr=$(LWS_LEADER_ADDRESS)
- --master-port={{ .masterPort }}
{{- end }}
{{- end }}
- --drain-grace-s={{ .Values.drain.graceSeconds }}
- --drain-timeout-s={{ .Values.drain.timeoutSeconds }}
{{- with .Values.opsPort }}
- --ops-host=0.0.0.0
- --ops-port={{ . }}
{{- end }}
{{- if .Values.auth.existingSecret }}
- --api-key-file=/etc/internvl-serve/keys/keys
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- $flag := replace "_" "-" $name }}
{{- if kindIs "invalid" $value }}
{{- /* null: the daemon's default. */}}
{{- else if kindIs "bool" $value }}
- --{{ $value | ternary "" "no-" }}{{ $flag }}
{{- else if kindIs "slice" $value }}
{{- range $value }}
- {{ printf "--%s=%v" $flag . | quote }}
{{- end }}
{{- else if kindIs "float64" $value }}
{{- /* Helm reads all numbers as floats; %v would write 67108864 as 6.7108864e+07. */}}
- --{{ $flag }}={{ eq $value (floor $value) | ternary (printf "%.0f" $value) (printf "%v" $value) }}
{{- else }}
- {{ printf "--%s=%v" $flag $value | quote }}
{{- end }}
{{- end }}
{{- end -}}
