// Package deploy holds no code: its folder has what an operator installs beside
// brfuse's programs. README.md says what goes where; the tests here check that
// the files are what their readers take.
package deploy
