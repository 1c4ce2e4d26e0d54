{{/* securityContext of every pod; takes the root. Passes Pod Security "restricted". */}}
{{- define "darkroom.podSecurity" -}}
{{- $security := .Values.security -}}
{{- if not $security.hostUsers }}
hostUsers: false
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with $security.runAsUser }}
  runAsUser: {{ int64 . }}
  {{- end }}
  {{- with $security.runAsGroup }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  {{- with $security.fsGroup }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* securityContext of every container. */}}
{{- define "darkroom.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}
