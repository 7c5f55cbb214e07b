{{/* The Job that fetches a model from the Hub into a claim. */}}

{{- define "internvl.downloadSpec" -}}
backoffLimit: 10
template:
  metadata:
    labels:
      app.kubernetes.io/name: {{ include "internvl.name" . | quote }}
      app.kubernetes.io/instance: {{ .Release.Name | quote }}
      app.kubernetes.io/component: download
  spec:
    restartPolicy: OnFailure
    automountServiceAccountToken: false
    enableServiceLinks: false
    securityContext:
      {{- toYaml .Values.podSecurityContext | nindent 6 }}
    {{- with .Values.imagePullSecrets }}
    imagePullSecrets:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    containers:
      - name: download
        image: {{ include "internvl.image" . | quote }}
        imagePullPolicy: {{ .Values.image.pullPolicy | quote }}
        # The mark comes last, so that no pod loads half a model. Data only: no code is fetched.
        command: [sh, -ec]
        args:
          - |
            [ -e {{ include "internvl.downloadDone" . }} ] && exit 0
            hf download "$REPO" --revision "$REVISION" --local-dir "$FOLDER" \
              --include '*.json' --include '*.safetensors' --include tokenizer.model
            touch {{ include "internvl.downloadDone" . }}
        env:
          - {name: REPO, value: {{ .Values.model.download.repo | quote }}}
          - {name: REVISION, value: {{ .Values.model.download.revision | quote }}}
          - {name: FOLDER, value: {{ include "internvl.modelFolder" . | quote }}}
          - {name: HF_HUB_OFFLINE, value: "0"}
          - {name: HOME, value: /tmp}
          - {name: HF_HOME, value: /tmp/huggingface}
          {{- with .Values.model.download.tokenSecret }}
          {{- if .name }}
          - name: HF_TOKEN
            valueFrom:
              secretKeyRef: {name: {{ .name | quote }}, key: {{ .key | quote }}}
          {{- end }}
          {{- end }}
        resources:
          requests: {cpu: "1", memory: 2Gi}
          limits: {memory: 4Gi}
        securityContext:
          {{- toYaml .Values.securityContext | nindent 10 }}
        volumeMounts:
          - {name: model, mountPath: /models}
          - {name: tmp, mountPath: /tmp}
    volumes:
      - name: model
        persistentVolumeClaim: {claimName: {{ include "internvl.downloadClaim" . | quote }}}
      - name: tmp
        emptyDir: {}
    {{- with .Values.tolerations }}
    tolerations:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end -}}
