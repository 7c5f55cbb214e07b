{{/* Where the weights come from: the volume, its mount and the folder that the daemon serves. */}}

{{- define "internvl.modelFolder" -}}
{{- with .Values.model -}}
{{- if ne .source "demo" -}}
{{- $folder := .folder -}}
{{- if and (eq .source "download") (not $folder) -}}
{{- $folder = base .download.repo -}}
{{- end -}}
{{- printf "/models/%s" $folder | trimSuffix "/" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "internvl.downloadClaim" -}}
{{- .Values.model.download.existingClaim | default (printf "%s-model" (include "internvl.fullname" .)) -}}
{{- end -}}

{{/* Changes with what is downloaded: a Job is immutable, and pods wait for this very revision. */}}
{{- define "internvl.downloadMark" -}}
{{- with .Values.model.download -}}
{{- printf "%s@%s" .repo .revision | sha256sum | trunc 8 -}}
{{- end -}}
{{- end -}}

{{- define "internvl.modelVolume" -}}
{{- with .Values.model -}}
- name: model
{{- if eq .source "pvc" }}
  persistentVolumeClaim:
    claimName: {{ .pvc.existingClaim | quote }}
    readOnly: true
{{- else if eq .source "download" }}
  persistentVolumeClaim:
    claimName: {{ include "internvl.downloadClaim" $ | quote }}
    readOnly: true
{{- else if eq .source "image" }}
  image:
    reference: {{ .image.reference | quote }}
    pullPolicy: {{ .image.pullPolicy | quote }}
{{- else if eq .source "hostPath" }}
  hostPath:
    path: {{ .hostPath.path | quote }}
    type: Directory
{{- end }}
{{- end -}}
{{- end -}}

{{/* Holds pods back until the Job has written its mark. */}}
{{- define "internvl.waitForModel" -}}
- name: wait-for-model
  image: {{ include "internvl.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
  command: [sh, -c, "until [ -e {{ include "internvl.downloadDone" . }} ]; do sleep 2; done"]
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 32Mi}
  volumeMounts:
    - {name: model, mountPath: /models, readOnly: true}
{{- end -}}

{{- define "internvl.downloadDone" -}}
/models/.complete-{{ include "internvl.downloadMark" . }}
{{- end -}}
