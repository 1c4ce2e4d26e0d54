{{/* What the pods of all services share. Each service's own file holds its kind, ports, variables, probes and volumes. */}}

{{/* Number of pods; left out where something else sets it. */}}
{{- define "darkroom.replicas" -}}
{{- if not (or .values.autoscaling.enabled (default dict .values.keda).enabled) }}
replicas: {{ int64 .values.replicas }}
{{- end }}
{{- end -}}

{{/* Most pods that there may be. */}}
{{- define "darkroom.maxReplicas" -}}
{{- if .values.autoscaling.enabled -}}{{ int64 .values.autoscaling.maxReplicas }}
{{- else if (default dict .values.keda).enabled -}}{{ int64 .values.keda.maxReplicas }}
{{- else -}}{{ int64 .values.replicas }}
{{- end -}}
{{- end -}}

{{/* Rollout of a Deployment. A new pod with a GPU would wait for the card that the old one holds, so the old one goes first. */}}
{{- define "darkroom.strategy" -}}
type: RollingUpdate
rollingUpdate:
  {{- if include "darkroom.hasGpu" . }}
  maxSurge: 0
  maxUnavailable: 1
  {{- else }}
  maxSurge: 1
  maxUnavailable: 0
  {{- end }}
{{- end -}}

{{/* Metadata of a pod; annotations: a map of this component's own. */}}
{{- define "darkroom.podMetadata" -}}
labels:
  {{- include "darkroom.podLabels" . | nindent 2 }}
{{- with merge (dict) (default dict .annotations) (default dict .values.podAnnotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Fields of a service's pod up to its containers. */}}
{{- define "darkroom.podFields" -}}
serviceAccountName: {{ include "darkroom.name" . }}
automountServiceAccountToken: {{ eq .name "trainer" }}
enableServiceLinks: false
{{- include "darkroom.pullSecrets" .root }}
{{- include "darkroom.podSecurity" .root }}
terminationGracePeriodSeconds: {{ add .root.Values.shutdown.preStopSeconds .values.drainSeconds .root.Values.shutdown.marginSeconds }}
{{- include "darkroom.placement" . }}
{{- end -}}

{{/* Fields of a service's container that do not differ. */}}
{{- define "darkroom.containerFields" -}}
{{ include "darkroom.imageFields" (dict "root" .root "image" .values.image "gpu" .values.gpu) }}
{{ include "darkroom.containerSecurity" . }}
terminationMessagePolicy: FallbackToLogsOnError
{{- with .root.Values.shutdown.preStopSeconds }}
lifecycle:
  preStop:
    sleep: {seconds: {{ int64 . }}}
{{- end }}
{{ include "darkroom.resources" . }}
{{- end -}}

{{/* ServiceAccount of a service. */}}
{{- define "darkroom.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "darkroom.metadata" (merge (dict "annotations" .values.serviceAccountAnnotations) .) | nindent 2 }}
automountServiceAccountToken: false
{{- end -}}
