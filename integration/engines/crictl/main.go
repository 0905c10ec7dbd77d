// Command crictl makes the calls to a CRI that the kubelet makes for a pod, one a
// run, for tests in guests:
//
//	crictl run-pod JSON        {"name", "namespace", "uid", "ports": [{"host", "container"}]}; prints the sandbox's id
//	crictl run POD JSON        {"name", "image", "args"}; creates and starts a container, prints its id
//	crictl stop-pod POD
//	crictl rm-pod POD
//	crictl pods                prints the ids of all sandboxes
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// limit bounds a call; an emulated guest is slow.
const limit = 2 * time.Minute

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	err := run(ctx, os.Args[1:])
	cancel()
	if err != nil {
		fmt.Fprintln(os.Stderr, "crictl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("no command")
	}
	conn, err := grpc.NewClient("unix:///run/containerd/containerd.sock", grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	c := cri.NewRuntimeServiceClient(conn)
	switch cmd, args := args[0], args[1:]; {
	case cmd == "run-pod" && len(args) == 1:
		return runPod(ctx, c, args[0])
	case cmd == "run" && len(args) == 2:
		return runContainer(ctx, c, args[0], args[1])
	case cmd == "stop-pod" && len(args) == 1:
		_, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: args[0]})
		return err
	case cmd == "rm-pod" && len(args) == 1:
		_, err := c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: args[0]})
		return err
	case cmd == "pods" && len(args) == 0:
		return pods(ctx, c)
	}
	return fmt.Errorf("no such command: %q", args)
}

// pod is what a sandbox is made of.
type pod struct {
	Name, Namespace, UID string
	Ports                []struct{ Host, Container int32 }
}

func (p pod) config() *cri.PodSandboxConfig {
	config := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: p.Name, Namespace: p.Namespace, Uid: p.UID},
		Hostname: p.Name, LogDirectory: "/run/log/pods",
		Linux: &cri.LinuxPodSandboxConfig{},
	}
	for _, port := range p.Ports {
		config.PortMappings = append(config.PortMappings, &cri.PortMapping{HostPort: port.Host, ContainerPort: port.Container})
	}
	return config
}

func runPod(ctx context.Context, c cri.RuntimeServiceClient, text string) error {
	var p pod
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return err
	}
	r, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: p.config()})
	if err != nil {
		return err
	}
	st, err := c.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: r.GetPodSandboxId()})
	if err != nil {
		return err
	}
	if st.GetStatus().GetState() != cri.PodSandboxState_SANDBOX_READY {
		return fmt.Errorf("sandbox %s is in state %s", r.GetPodSandboxId(), st.GetStatus().GetState())
	}
	fmt.Println(r.GetPodSandboxId(), st.GetStatus().GetNetwork().GetIp())
	return nil
}

// container is what a container is made of.
type container struct {
	Name, Image string
	Args        []string
}

func runContainer(ctx context.Context, c cri.RuntimeServiceClient, podID, text string) error {
	var k container
	if err := json.Unmarshal([]byte(text), &k); err != nil {
		return err
	}
	st, err := c.PodSandboxStatus(ctx, &cri.PodSandboxStatusRequest{PodSandboxId: podID})
	if err != nil {
		return err
	}
	m := st.GetStatus().GetMetadata()
	r, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{
		PodSandboxId: podID,
		Config: &cri.ContainerConfig{
			Metadata: &cri.ContainerMetadata{Name: k.Name}, Image: &cri.ImageSpec{Image: k.Image},
			Command: k.Args, LogPath: k.Name + ".log", Linux: &cri.LinuxContainerConfig{},
		},
		SandboxConfig: pod{Name: m.GetName(), Namespace: m.GetNamespace(), UID: m.GetUid()}.config(),
	})
	if err != nil {
		return err
	}
	if _, err := c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: r.GetContainerId()}); err != nil {
		return err
	}
	fmt.Println(r.GetContainerId())
	return nil
}

func pods(ctx context.Context, c cri.RuntimeServiceClient) error {
	r, err := c.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, p := range r.GetItems() {
		fmt.Println(p.GetId(), p.GetState())
	}
	return nil
}
