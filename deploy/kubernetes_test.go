package deploy_test

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

type meta struct {
	Name, Namespace string
	Labels          map[string]string
}

type configMap struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Data       map[string]string
}

// daemonSet has the fields of Kubernetes' that the manifest uses, under their names.
type daemonSet struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string
	Metadata   meta
	Spec       struct {
		Selector struct {
			MatchLabels map[string]string `yaml:"matchLabels"`
		}
		UpdateStrategy struct {
			Type          string
			RollingUpdate struct {
				MaxUnavailable int `yaml:"maxUnavailable"`
			} `yaml:"rollingUpdate"`
		} `yaml:"updateStrategy"`
		Template struct {
			Metadata meta
			Spec     podSpec
		}
	}
}

type podSpec struct {
	PriorityClassName             string            `yaml:"priorityClassName"`
	AutomountServiceAccountToken  *bool             `yaml:"automountServiceAccountToken"`
	HostNetwork                   bool              `yaml:"hostNetwork"`
	HostPID                       bool              `yaml:"hostPID"`
	TerminationGracePeriodSeconds int               `yaml:"terminationGracePeriodSeconds"`
	NodeSelector                  map[string]string `yaml:"nodeSelector"`
	Tolerations                   []struct{ Operator string }
	InitContainers                []container `yaml:"initContainers"`
	Containers                    []container
	Volumes                       []struct {
		Name      string
		ConfigMap *struct{ Name string }       `yaml:"configMap"`
		HostPath  *struct{ Path, Type string } `yaml:"hostPath"`
	}
}

type container struct {
	Name, Image     string
	ImagePullPolicy string `yaml:"imagePullPolicy"`
	Args            []string
	SecurityContext struct {
		RunAsUser                *int `yaml:"runAsUser"`
		Privileged               bool
		ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
		AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
		Capabilities             struct{ Drop []string }
	} `yaml:"securityContext"`
	Resources    struct{ Requests, Limits map[string]string }
	VolumeMounts []struct {
		Name             string
		MountPath        string `yaml:"mountPath"`
		MountPropagation string `yaml:"mountPropagation"`
		ReadOnly         bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

// manifest reads the manifest; a field that is not known here is an error.
func manifest(t *testing.T) (configMap, daemonSet) {
	t.Helper()
	d := yaml.NewDecoder(strings.NewReader(read(t, "kubernetes/brfuse.yaml")))
	d.KnownFields(true)
	var cm configMap
	var ds daemonSet
	require.NoError(t, d.Decode(&cm))
	require.NoError(t, d.Decode(&ds))
	var more any
	require.ErrorIs(t, d.Decode(&more), io.EOF)
	return cm, ds
}

func TestDaemonSet(t *testing.T) {
	cm, ds := manifest(t)
	assert.Equal(t, "v1 ConfigMap", cm.APIVersion+" "+cm.Kind)
	assert.Equal(t, "apps/v1 DaemonSet", ds.APIVersion+" "+ds.Kind)
	assert.Equal(t, cm.Metadata.Namespace, ds.Metadata.Namespace)
	assert.Equal(t, read(t, "cni/10-brfuse.conflist"), cm.Data["10-brfuse.conflist"])
	assert.Equal(t, ds.Spec.Selector.MatchLabels, ds.Spec.Template.Metadata.Labels)

	pod := ds.Spec.Template.Spec
	assert.True(t, pod.HostNetwork && pod.HostPID)
	require.NotNil(t, pod.AutomountServiceAccountToken)
	assert.False(t, *pod.AutomountServiceAccountToken)
	var volumes []string
	for _, v := range pod.Volumes {
		volumes = append(volumes, v.Name)
		assert.NotEqual(t, v.ConfigMap == nil, v.HostPath == nil, v.Name)
		if v.ConfigMap != nil {
			assert.Equal(t, cm.Metadata.Name, v.ConfigMap.Name)
		}
	}
	var mounted []string
	for _, c := range append(pod.InitContainers, pod.Containers...) {
		assert.Equal(t, pod.Containers[0].Image, c.Image)
		assert.True(t, c.SecurityContext.ReadOnlyRootFilesystem, c.Name)
		for _, m := range c.VolumeMounts {
			assert.Contains(t, volumes, m.Name)
			mounted = append(mounted, m.Name)
			if m.MountPath == "/run" {
				assert.Equal(t, "HostToContainer", m.MountPropagation, "namespaces of later pods")
			}
		}
	}
	for _, v := range volumes {
		assert.Contains(t, mounted, v)
	}
}

// TestInstallArguments: what the first container is told is where its volumes are.
func TestInstallArguments(t *testing.T) {
	cm, ds := manifest(t)
	install := ds.Spec.Template.Spec.InitContainers[0]
	var paths []string
	for _, m := range install.VolumeMounts {
		paths = append(paths, m.MountPath)
	}
	for _, arg := range install.Args {
		_, value, ok := strings.Cut(arg, "=")
		require.True(t, ok, arg)
		if !slices.Contains(paths, value) {
			assert.Contains(t, paths, filepath.Dir(value), arg)
			assert.Contains(t, cm.Data, filepath.Base(value), arg)
		}
	}
}

// TestContainerfile: what is copied is made by `make build` or is here.
func TestContainerfile(t *testing.T) {
	copies := regexp.MustCompile(`(?m)^COPY (.*) /$`).FindAllStringSubmatch(read(t, "container/Containerfile"), -1)
	require.NotEmpty(t, copies)
	for _, c := range copies {
		for source := range strings.FieldsSeq(c[1]) {
			if program, ok := strings.CutPrefix(source, "bin/"); ok {
				source = "cmd/" + program
			}
			_, err := os.Stat(filepath.Join("..", source))
			require.NoError(t, err)
		}
	}
	to, err := os.Readlink("container/root/var/run")
	require.NoError(t, err)
	assert.Equal(t, "../run", to)
}
