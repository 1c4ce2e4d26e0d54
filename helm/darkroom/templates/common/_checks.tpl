{{/* What the schema cannot say: values that contradict each other. A YAML list of sentences. */}}
{{- define "darkroom.problems" -}}
{{- include "darkroom.problems.store" . }}
{{- include "darkroom.problems.access" . }}
{{- include "darkroom.problems.models" . }}
{{- include "darkroom.problems.training" . }}
{{- include "darkroom.problems.job" .Values.trainer.job }}
{{- range $key := list "captioner" "trainer" "converter" "webuiGateway" "webuiEngine" }}
{{- include "darkroom.problems.service" (dict "key" $key "values" (index $.Values $key)) }}
{{- end }}
{{- end -}}

{{- define "darkroom.problems.store" -}}
{{- if .Values.trialStore.enabled }}
{{- if .Values.store.endpoint }}
- "store.endpoint is {{ .Values.store.endpoint }} and trialStore.enabled is true: choose one of the two"
{{- end }}
{{- if not .Values.trialStore.image.repository }}
- "trialStore.image.repository is empty: name an image of a MinIO or SeaweedFS server"
{{- end }}
{{- if ne (include "darkroom.trainingNamespace" .) .Release.Namespace }}
- "trialStore.enabled is true and trainer.namespace is {{ .Values.trainer.namespace }}: the trial store's Secret is in the release's namespace alone, so leave trainer.namespace empty"
{{- end }}
{{- else }}
{{- if not .Values.store.endpoint }}
- "store.endpoint is empty: give the address of your S3 endpoint, such as https://s3.example.org, or set trialStore.enabled"
{{- end }}
{{- if not .Values.store.existingSecret }}
- "store.existingSecret is empty: name a Secret with the keys {{ .Values.store.accessKeyKey }} and {{ .Values.store.secretKeyKey }}"
{{- end }}
{{- end }}
{{- end -}}

{{- define "darkroom.problems.access" -}}
{{- if .Values.tls.enabled }}
{{- if eq (empty .Values.tls.existingSecret) (not .Values.tls.certManager.enabled) }}
- "tls.enabled is true: give either tls.existingSecret or tls.certManager.enabled, not none and not both"
{{- end }}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef) }}
- "tls.certManager.issuerRef is empty: name the Issuer or ClusterIssuer that signs"
{{- end }}
{{- end }}
{{- range $name := list "http" "grpc" }}
{{- $route := index $.Values.gatewayApi $name }}
{{- if and $route.enabled (not $route.parentRefs) }}
- "gatewayApi.{{ $name }}.parentRefs is empty: name the Gateway that the route attaches to"
{{- end }}
{{- end }}
{{- end -}}

{{- define "darkroom.problems.models" -}}
{{- if and .Values.captioner.enabled (not .Values.captioner.models.volume) (not .Values.tinyModels.enabled) }}
- "captioner.models.volume is empty: give the volume that holds {{ .Values.captioner.model }}, or set tinyModels.enabled"
{{- end }}
{{- $gateway := .Values.webuiGateway }}
{{- if and $gateway.enabled (not .Values.webuiEngine.enabled) (not $gateway.engines) (not $gateway.enginesSecret) }}
- "webuiEngine.enabled is false: tell the gateway its engines by webuiGateway.engines or webuiGateway.enginesSecret"
{{- end }}
{{- if and $gateway.enabled .Values.webuiEngine.enabled (lt (int $gateway.drainSeconds) (int .Values.webuiEngine.drainSeconds)) }}
- "webuiGateway.drainSeconds is {{ int $gateway.drainSeconds }} and webuiEngine.drainSeconds {{ int .Values.webuiEngine.drainSeconds }}: expected at least as much for the gateway, which hands on what the engines still draw"
{{- end }}
{{- if and $gateway.engines $gateway.enginesSecret }}
- "webuiGateway.engines and webuiGateway.enginesSecret are both given: put all URLs into the Secret"
{{- end }}
{{- end -}}

{{- define "darkroom.problems.training" -}}
{{- $gpu := .Values.trainer.job.gpu }}
{{- include "darkroom.problems.gpu" (dict "path" "trainer.job.gpu" "gpu" $gpu) }}
{{- if and $gpu.enabled (not $gpu.allowShared) (not $gpu.resourceClaimTemplateName) }}
{{- if hasSuffix ".shared" $gpu.resourceName }}
- "trainer.job.gpu.resourceName is {{ $gpu.resourceName }}, a GPU shared with other pods: training may run out of its memory through a neighbour; name one that is not shared, or set trainer.job.gpu.allowShared"
{{- end }}
{{- range $gpu.products }}
{{- if hasSuffix "-SHARED" . }}
- "trainer.job.gpu.products has {{ . }}, a GPU shared with other pods: name one that is not shared, or set trainer.job.gpu.allowShared"
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.trainer.job.queuePriorityClass (not .Values.trainer.job.queueName) }}
- "trainer.job.queuePriorityClass is {{ .Values.trainer.job.queuePriorityClass }} without trainer.job.queueName: name the queue, too"
{{- end }}
{{- end -}}

{{/* What the trainer would refuse to start with (libs/jobs: execution_rules); takes trainer.job. */}}
{{- define "darkroom.problems.job" -}}
{{- $gpu := .gpu -}}
{{- if and $gpu.enabled (not $gpu.resourceClaimTemplateName) (hasPrefix "nvidia.com/mig-" $gpu.resourceName) (gt (int $gpu.count) 1) }}
- "trainer.job.gpu.count is {{ $gpu.count | int }} with resourceName {{ $gpu.resourceName }}: one process uses one MIG slice; use count 1 of a larger one, or whole GPUs"
{{- end }}
{{- if ge (include "darkroom.number" .shmSize | float64) (include "darkroom.number" .resources.memory | float64) }}
- "trainer.job.shmSize is {{ .shmSize }}: expected less than trainer.job.resources.memory, {{ .resources.memory }}, of which it is a part"
{{- end }}
{{- range $field := list "labels" "annotations" }}
{{- range $name := keys (get $ $field) | sortAlpha }}
{{- if hasPrefix "kueue.x-k8s.io/" $name }}
- "trainer.job.{{ $field }} has {{ $name }}, which Darkroom or Kubernetes sets: use queueName and queuePriorityClass"
{{- else if regexMatch "^(app\\.kubernetes\\.io|darkroom\\.dev|batch\\.kubernetes\\.io)/" $name }}
- "trainer.job.{{ $field }} has {{ $name }}, which Darkroom or Kubernetes sets: choose another name"
{{- else if eq $name "helm.sh/chart" }}
- "trainer.job.{{ $field }} has {{ $name }}, which changes with every release, and the pods of a Job cannot change: leave it out"
{{- end }}
{{- end }}
{{- end }}
{{- range $name := keys .env | sortAlpha }}
{{- if regexMatch "^(DARKROOM_(RUN|RECIPE|SAVE_SECONDS|DEVICE|PROCESSES|NODES|LAUNCHER|WORKER_FOLDER|S3_ENDPOINT|S3_BUCKET|S3_REGION|S3_ACCESS_KEY(_FILE)?|S3_SECRET_KEY(_FILE)?)|MASTER_ADDR|MASTER_PORT|JOB_COMPLETION_INDEX)$" $name }}
- "trainer.job.env has {{ $name }}, which Darkroom sets: leave it out"
{{- end }}
{{- end }}
{{- end -}}

{{/* The value of a quantity: bytes, or cores. */}}
{{- define "darkroom.number" -}}
{{- $text := toString . -}}
{{- $unit := regexFind "(m|k|[KMGT]i|[MGT])$" $text -}}
{{- $units := dict "" 1 "m" 1e-3 "k" 1e3 "Ki" 1024 "M" 1e6 "Mi" 1048576 "G" 1e9 "Gi" 1073741824 "T" 1e12 "Ti" 1099511627776 -}}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit) -}}
{{- end -}}

{{/* dict "path" "captioner.gpu" "gpu" (the block) */}}
{{- define "darkroom.problems.gpu" -}}
{{- if .gpu.enabled }}
{{- if .gpu.resourceClaimTemplateName }}
{{- if or .gpu.minMemoryMiB .gpu.products }}
- "{{ .path }}.minMemoryMiB or {{ .path }}.products is given beside resourceClaimTemplateName: the claim's own selectors choose the GPU"
{{- end }}
{{- else if hasPrefix "nvidia.com/mig-" .gpu.resourceName }}
{{- $gigabytes := regexFind "[0-9]+gb" .gpu.resourceName | trimSuffix "gb" | int }}
{{- if and $gigabytes (gt (int .gpu.minMemoryMiB) (mul $gigabytes 1024 | int)) }}
- "{{ .path }}.minMemoryMiB is {{ .gpu.minMemoryMiB | int }}, but a slice {{ .gpu.resourceName }} has {{ $gigabytes }} GiB: name a larger one"
{{- end }}
{{- else if and .gpu.minMemoryMiB (not (hasPrefix "nvidia.com/" .gpu.resourceName)) }}
- "{{ .path }}.minMemoryMiB is {{ .gpu.minMemoryMiB | int }} and {{ .path }}.resourceName {{ .gpu.resourceName }}: only NVIDIA's nodes tell memory in numbers; use products or nodeSelector"
{{- end }}
{{- end }}
{{- end -}}

{{/* dict "key" "captioner" "values" .Values.captioner */}}
{{- define "darkroom.problems.service" -}}
{{- $keda := default dict .values.keda }}
{{- if and .values.autoscaling.enabled $keda.enabled }}
- "{{ .key }}.autoscaling.enabled and {{ .key }}.keda.enabled are both true: choose one"
{{- end }}
{{- if and .values.autoscaling.enabled (not .values.autoscaling.cpuUtilizationPercent) (not .values.autoscaling.metrics) }}
- "{{ .key }}.autoscaling has no metric: set cpuUtilizationPercent or metrics"
{{- end }}
{{- if and (eq .key "captioner") $keda.enabled (not $keda.minReplicas) (not $keda.triggers) }}
- "captioner.keda.minReplicas is 0 without captioner.keda.triggers: a captioner that does not run has no queue, so nothing would start it; add a trigger, such as cron, or keep one pod"
{{- end }}
{{- with .values.gpu }}
{{- include "darkroom.problems.gpu" (dict "path" (printf "%s.gpu" $.key) "gpu" .) }}
{{- $limit := dig "limits" "memory" "" $.values.resources }}
{{- $request := dig "requests" "memory" "" $.values.resources }}
{{- if and .enabled (or (not $request) (and $limit (ne $limit $request))) }}
- "{{ $.key }}.resources asks for {{ default "no" $request }} memory with a limit of {{ default "none" $limit }}: with a GPU both must be the same, so that the pod is not evicted for its memory"
{{- end }}
{{- end }}
{{- end -}}
