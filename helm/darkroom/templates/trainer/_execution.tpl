{{/* execution.yaml: how the trainer makes training Jobs; the `execution` block of a run file has the same fields. */}}
{{- define "darkroom.execution" -}}
{{- $job := .Values.trainer.job -}}
image: {{ include "darkroom.image" (dict "root" . "image" $job.image "gpu" $job.gpu) | quote }}
imagePullPolicy: {{ include "darkroom.pullPolicy" (dict "root" . "image" $job.image) }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
namespace: {{ include "darkroom.trainingNamespace" . }}
serviceAccountName: {{ include "darkroom.fullname" . }}-dreambooth
storeSecret:
  name: {{ default (include "darkroom.storeSecret" .) $job.store.existingSecret }}
  accessKey: {{ .Values.store.accessKeyKey }}
  secretKey: {{ .Values.store.secretKeyKey }}
store:
  endpoint: {{ include "darkroom.storeEndpoint" . }}
  bucket: {{ .Values.store.bucket }}
  region: {{ .Values.store.region }}
{{- /* null is said: it leaves the id to the platform. */}}
{{- range $field := list "runAsUser" "runAsGroup" "fsGroup" }}
{{- $id := index $.Values.security $field }}
{{ $field }}: {{ if kindIs "invalid" $id }}null{{ else }}{{ int64 $id }}{{ end }}
{{- end }}
hostUsers: {{ .Values.security.hostUsers }}
{{- if $job.gpu.enabled }}
gpu:
  {{- toYaml $job.gpu | nindent 2 }}
{{- end }}
{{- range $field := list "device" "resources" "tmpSize" "shmSize" "graceSeconds" "backoffLimit" "deadlineSeconds" "ttlSeconds" "nodeSelector" "tolerations" "affinity" "priorityClassName" "topologySpreadConstraints" "queueName" "queuePriorityClass" "nodes" "labels" "annotations" "env" }}
{{- $value := get $job $field }}
{{- /* Numbers come as floats, and a zero says something. */}}
{{- if has (kindOf $value) (list "float64" "int64" "int") }}
{{ $field }}: {{ int64 $value }}
{{- else if $value }}
{{ toYaml (dict $field $value) }}
{{- end }}
{{- end }}
{{- end -}}
