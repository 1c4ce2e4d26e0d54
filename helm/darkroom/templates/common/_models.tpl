{{/* The volume of models at /models: the service's own, or the tiny models copied out of the tools image, or none. */}}

{{/* "volume", "tiny" or nothing. */}}
{{- define "darkroom.modelSource" -}}
{{- if .values.models.volume -}}volume{{- else if .root.Values.tinyModels.enabled -}}tiny{{- end -}}
{{- end -}}

{{- define "darkroom.modelsMount" -}}
{{- if include "darkroom.modelSource" . }}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}
{{- end -}}

{{- define "darkroom.modelsVolume" -}}
{{- $source := include "darkroom.modelSource" . -}}
{{- if eq $source "volume" }}
- name: models
  {{- toYaml .values.models.volume | nindent 2 }}
{{- else if eq $source "tiny" }}
- name: models
  emptyDir: {sizeLimit: 256Mi}
{{- end }}
{{- end -}}

{{- define "darkroom.modelsInit" -}}
{{- if eq (include "darkroom.modelSource" .) "tiny" }}
initContainers:
  - name: tiny-models
    {{- include "darkroom.imageFields" (dict "root" .root "image" .root.Values.tools.image) | nindent 4 }}
    args: [models, copy, /models/tiny, /target]
    {{- include "darkroom.containerSecurity" . | nindent 4 }}
    resources:
      {{- toYaml .root.Values.tinyModels.resources | nindent 6 }}
    terminationMessagePolicy: FallbackToLogsOnError
    volumeMounts:
      - {name: models, mountPath: /target}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- end -}}
