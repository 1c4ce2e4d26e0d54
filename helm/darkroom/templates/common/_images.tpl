{{/*
Reference of an image: dict "root" $ "image" .Values.captioner.image, and "gpu" with the GPU block of what has an image for GPUs, too.
An own tag or digest says by itself which of the two builds it is.
*/}}
{{- define "darkroom.image" -}}
{{- $images := .root.Values.images -}}
{{- $registry := default $images.registry .image.registry -}}
{{- $tag := default (default .root.Chart.AppVersion $images.tag) .image.tag -}}
{{- if and (include "darkroom.hasNvidia" .gpu) (not .image.tag) (not .image.digest) -}}
{{- $tag = printf "%s%s" $tag (default "" $images.cudaSuffix) -}}
{{- end -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .image.repository }}:{{ $tag }}
{{- with .image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* Pull policy of an image, same argument. */}}
{{- define "darkroom.pullPolicy" -}}
{{ default .root.Values.images.pullPolicy .image.pullPolicy }}
{{- end -}}

{{/* The two fields of a container, same argument. */}}
{{- define "darkroom.imageFields" -}}
image: {{ include "darkroom.image" . | quote }}
imagePullPolicy: {{ include "darkroom.pullPolicy" . }}
{{- end -}}

{{/* imagePullSecrets of a pod; takes the root. */}}
{{- define "darkroom.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}
