{{/*
Names and labels. Most helpers of this chart take a component:
  dict "root" $ "name" "captioner" "values" .Values.captioner
*/}}

{{/* Prefix of all names: the release's name, with "darkroom" in it. At most 39 characters: every name fits 63, and those of StatefulSets 52, to which a hash is added. */}}
{{- define "darkroom.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 39 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 39 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 39 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Name of a component's objects. */}}
{{- define "darkroom.name" -}}
{{ include "darkroom.fullname" .root }}-{{ .name }}
{{- end -}}

{{/* Labels that select a component's pods. They never change: selectors are immutable. */}}
{{- define "darkroom.selectorLabels" -}}
app.kubernetes.io/name: darkroom
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{/* Labels of a component's pods. No chart version: it would make every change of the chart an error in Jobs. */}}
{{- define "darkroom.podLabels" -}}
{{ include "darkroom.selectorLabels" . }}
app.kubernetes.io/part-of: darkroom
{{- with merge (dict) (default dict .values.podLabels) .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of a component's objects. */}}
{{- define "darkroom.labels" -}}
{{ include "darkroom.selectorLabels" . }}
app.kubernetes.io/part-of: darkroom
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_") }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
Metadata of an object. Besides the component it takes: suffix (of the name), namespace (default the release's),
labels and annotations (maps of this object alone).
*/}}
{{- define "darkroom.metadata" -}}
name: {{ include "darkroom.name" . }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ default .root.Release.Namespace .namespace }}
labels:
  {{- include "darkroom.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default dict .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Namespace of the training Jobs. */}}
{{- define "darkroom.trainingNamespace" -}}
{{ default .Release.Namespace .Values.trainer.namespace }}
{{- end -}}
