{{/* Volumes of the pod, and where it runs. */}}

{{- define "internvl.volumes" -}}
- name: shm
  emptyDir: {medium: Memory, sizeLimit: {{ .Values.shm.size | quote }}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
- name: cache
{{- if .Values.cache.existingClaim }}
  persistentVolumeClaim: {claimName: {{ .Values.cache.existingClaim | quote }}}
{{- else }}
  emptyDir: {sizeLimit: {{ .Values.cache.size | quote }}}
{{- end }}
{{- if ne .Values.model.source "demo" }}
{{ include "internvl.modelVolume" . }}
{{- end }}
{{- with .Values.auth }}
{{- if .existingSecret }}
- name: keys
  secret:
    secretName: {{ .existingSecret | quote }}
    items: [{key: {{ .key | quote }}, path: keys}]
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "internvl.mounts" -}}
- {name: shm, mountPath: /dev/shm}
- {name: tmp, mountPath: /tmp}
- {name: cache, mountPath: /cache}
{{- if ne .Values.model.source "demo" }}
- {name: model, mountPath: /models, readOnly: true}
{{- end }}
{{- if .Values.auth.existingSecret }}
{{- /* A folder, not a file by subPath: that would never see changed keys. */}}
- {name: keys, mountPath: /etc/internvl-serve/keys, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "internvl.placement" -}}
{{- if and (eq .Values.accelerator.mode "dra") (ne .Values.accelerator.type "cpu") }}
resourceClaims:
  - name: gpus
    resourceClaimTemplateName: {{ printf "%s-gpus" (include "internvl.fullname" .) | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $own := dict "labelSelector" (dict "matchLabels" (include "internvl.selectorLabels" $ | fromYaml)) }}
  - {{- toYaml (merge (dict) . $own) | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}
