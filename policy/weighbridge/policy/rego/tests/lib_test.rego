# Tests of the library, under any policy: every denial, every helper. Run with coverage: all lines of it are reached.
package weighbridge.policy_test

import data.examples
import data.weighbridge.lib
import rego.v1

good := examples.azure_snp_h100

host := examples.bare_metal_tpm_h100

emulated := examples.emulated

measured := examples.in_baseline

# The document with members replaced: an object of JSON pointers and values.
changed(document, values) := json.patch(document, [{"op": "replace", "path": path, "value": value} | some path, value in values])

# The codes that every policy denies a changed good document with.
denied(values) := found if {
	found := {d.code | some d in lib.always} with input as changed(good.input, values) with data.reference as good.reference
}

# Those that policies for genuine platforms deny it with.
refused(values) := found if {
	found := {d.code | some d in lib.platform_denials} with input as changed(good.input, values)
}

# The checks that it proves.
proven(values) := found if {
	found := lib.proven with input as changed(good.input, values) with data.reference as good.reference
}

class(document) := found if {
	found := lib.platform_class with input as document
}

other := "dddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddddd"

model := good.input.weights.declared[0].manifest

difference := {"index": 22, "owner": "driver", "name": "Driver", "expected": ["aa"], "got": "cc", "causes": "another build"}

# ---------- a good document

test_good_documents_are_sound_and_genuine if {
	every example in [good, host, measured] {
		lib.sound with input as example.input with data.reference as example.reference
		lib.genuine with input as example.input with data.reference as example.reference
		lib.always == set() with input as example.input with data.reference as example.reference
		lib.platform_denials == set() with input as example.input with data.reference as example.reference
	}
}

test_emulated_document_is_sound_and_not_genuine if {
	lib.sound with input as emulated.input with data.reference as emulated.reference
	not lib.genuine with input as emulated.input with data.reference as emulated.reference
}

# ---------- the document

test_another_schema if denied({"/schema": "weighbridge/policy-input/v2"}) == {"VERSION_UNSUPPORTED"}

test_a_list_that_is_none if {
	"POLICY_ERROR" in denied({"/telemetry/sources": {}})
	"POLICY_ERROR" in denied({"/telemetry/devices": {}})
}

test_a_denial_may_speak_of_something_else_than_the_host if {
	made := lib.denial("CLOSED", null, "nobody works today", null, null, null) with input as good.input
	lib.passing(made) == object.union(made, {"sticks": false})
}

test_a_denial_shows_values_as_text if {
	made := lib.denial("A", null, "m", [1], "x", null) with input as good.input
	made == {
		"code": "A", "window": 3, "device": null, "message": "m", "expected": "[1]", "got": "x", "hint": null,
	}
}

test_of_what_is_no_object_a_field_is_null if {
	lib.field("text", "x") == null
	lib.field({"x": 1}, "x") == 1
	lib.field({"x": 1}, "y") == null
}

test_what_is_no_finding_is_no_remark if {
	count(lib.remarks) == 0 with input as changed(good.input, {"/findings": ["x"]})
}

test_findings_are_remarks if {
	finding := {"code": "TPM_CLOCK", "device": null, "message": "not safe yet"}
	said := lib.remarks with input as changed(good.input, {"/findings": [finding]})
	said == {{"code": "TPM_CLOCK", "message": "not safe yet"}}
}

# ---------- freshness

test_held if denied({"/window/freshness": "held"}) == {"WINDOW_HELD"}

test_a_gap_is_a_remark if {
	said := lib.remarks with input as changed(good.input, {"/gap/held_windows": 2})
	said == {{"code": "WINDOW_HELD", "message": "2 windows were held back before this one"}}
}

test_no_gap if {
	lib.no_gap with input as good.input
	not lib.no_gap with input as changed(good.input, {"/gap/held_windows": 1})
}

test_length_of_the_window if {
	lib.window_within(10) with input as good.input
	not lib.window_within(9) with input as good.input
	not lib.window_within(10) with input as changed(good.input, {"/window/interval_ns": -1})
}

test_time_of_receipt if {
	lib.received_between("1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z")
	not lib.received_between("2200-01-01T00:00:00Z", "2201-01-01T00:00:00Z")
}

# ---------- the platform

test_classes if {
	class(good.input) == "azure_snp"
	class(host.input) == "bare_metal_tpm"
	class(emulated.input) == "emulated"
	class(changed(good.input, {"/platform/name": "intel-tdx", "/platform/tee/kind": "tdx"})) == "azure_tdx"
	class(changed(host.input, {"/platform/name": "google-vtpm", "/platform/kind": "tpm-ak-certificate"})) == "google_vtpm"
	class(changed(host.input, {"/platform/kind": "tpm-pinned-ak"})) == "pinned_tpm"
	class(changed(good.input, {"/platform/name": "another"})) == "unknown"
}

test_another_class_than_wanted if {
	lib.class_denials("azure_snp") == set() with input as good.input
	found := lib.class_denials("azure_snp") with input as host.input
	{d.code | some d in found} == {"PLATFORM_CLASS"}
	{d.got | some d in found} == {"bare_metal_tpm"}
}

test_host_trusted if {
	lib.host_trusted with input as host.input
	not lib.host_trusted with input as good.input
	lib.host_bound with input as good.input
}

test_not_genuine if "PLATFORM_EMULATED" in refused({"/platform/name": "insecure-emulated"})

test_state_held_by_the_host if refused({"/platform/state_held_by": "host"}) == {"HOST_STATE_HELD"}

test_broken_generation if refused({"/platform/tee/product": "Milan"}) == {"PLATFORM_WEAK"}

test_aliased_memory if refused({"/platform/tee/alias_check": "incomplete"}) == {"PLATFORM_WEAK"}

test_tdx if {
	refused({"/platform/name": "intel-tdx", "/platform/tee/kind": "tdx", "/platform/tee/tcb_status": "UpToDate"}) == set()
	refused({"/platform/name": "intel-tdx", "/platform/tee/kind": "tdx", "/platform/tee/tcb_status": "OutOfDate"}) == {"PLATFORM_WEAK"}
}

test_registers if {
	quoted := good.input.platform.boot_pcrs[0]
	lib.pcr(quoted.index) == quoted.sha256 with input as good.input
	lib.pcr(23) == null with input as good.input
	lib.pcr_is(quoted.index, {quoted.sha256, "00"}) with input as good.input
	index := quoted.index
	not lib.pcr_is(index, {"00"}) with input as good.input
	not lib.pcr_is(23, {null}) with input as good.input
}

test_a_register_that_is_quoted_twice_is_none if {
	first := good.input.platform.boot_pcrs[0]
	twice := [first, {"index": first.index, "sha256": other}]
	lib.pcr(first.index) == null with input as changed(good.input, {"/platform/boot_pcrs": twice})
}

test_booted_otherwise if denied({"/platform/boot_reference": "mismatch"}) == {"BOOT_MISMATCH"}

test_a_register_differs if {
	changes := {"/platform/differences": [{"index": 4, "expected": ["aa"], "got": "bb"}]}
	found := lib.always with input as changed(good.input, changes) with data.reference as good.reference
	{d.message | some d in found} == {"PCR 4 is not as the host set inference-h100 accepts it"}
}

test_violations if denied({"/runtime/violations": 1}) == {"RUNTIME_VIOLATION"}

test_known_files if {
	lib.only_known_files with input as good.input
	not lib.only_known_files with input as changed(good.input, {"/runtime/unknown": 1})
	not lib.only_known_files with input as emulated.input
}

# ---------- GPUs

test_no_gpu if denied({"/gpus": []}) == {"GPU_MISSING"}

test_switches_alone if {
	switches := [device | some device in host.input.gpus; device.kind == "switch"]
	denied({"/gpus": switches}) == {"GPU_MISSING"}
}

test_gpu_good if {
	bad := [gpu | some gpu in host.input.gpus; not lib.gpu_good(gpu)]
	bad == []
}

test_another_firmware if denied({"/gpus/0/fwid": "missing"}) == {"GPU_FWID"}

test_no_reference if denied({"/gpus/0/reference": "absent"}) == {"GPU_REFERENCE_ABSENT"}

test_other_measurements if denied({"/gpus/0/reference": "mismatch"}) == {"GPU_MEASUREMENT_MISMATCH"}

test_the_measurement_that_differs_is_named if {
	changes := {"/gpus/0/reference": "mismatch", "/gpus/0/mismatches": 1, "/gpus/0/differences": [difference]}
	found := lib.always with input as changed(good.input, changes) with data.reference as good.reference
	{d.message | some d in found} == {"measurement 22 (Driver) is not what the driver's manifest says"}
	{d.hint | some d in found} == {"known causes: another build"}
}

test_a_conflict if denied({"/gpus/0/conflicts": [9]}) == {"RIM_CONFLICT"}

test_too_old if {
	denied({"/gpus/0/minimum": "below"}) == {"GPU_OUTDATED"}
	gpu := good.input.gpus[0]
	lib.gpu_recent(gpu)
	any_age := changed(gpu, {"/minimum": "none"})
	not lib.gpu_recent(any_age)
}

test_revoked if denied({"/gpus/0/revocation": "revoked"}) == {"GPU_REVOKED"}

test_revocation_of_the_gpu_and_of_its_signers if {
	gpu := good.input.gpus[0]
	lib.gpu_revocation_good(gpu)
	stale := changed(gpu, {"/revocation": "stale"})
	not lib.gpu_revocation_good(stale)
	unspoken := changed(gpu, {"/manifests/0/revocation": "absent"})
	not lib.gpu_revocation_good(unspoken)
}

test_mode_off if denied({"/gpus/0/cc_mode_host_claim": "off"}) == {"GPU_CC_MODE"}

test_development_mode if refused({"/gpus/0/cc_mode_host_claim": "devtools"}) == {"GPU_CC_MODE"}

test_a_switch_that_is_not_locked if {
	documents := changed(host.input, {"/gpus/8/signed_locked": false})
	found := {d.code | some d in lib.always} with input as documents with data.reference as host.reference
	found == {"GPU_MODE"}
}

test_gpu_of_software if refused({"/gpus/0/platform": "insecure-emulated"}) == {"PLATFORM_EMULATED"}

test_vouched_by_the_maker if {
	gpu := good.input.gpus[0]
	lib.gpu_vouched_by_maker(gpu)
	alone := changed(gpu, {"/manifests": []})
	not lib.gpu_vouched_by_maker(alone)
}

test_mode_and_report_of_a_gpu if {
	gpu := good.input.gpus[0]
	lib.gpu_mode_is(gpu, "spt")
	not lib.gpu_mode_is(gpu, "ppcie")
	lib.gpu_reported(gpu)
	silent := changed(gpu, {"/reported_in_window": false})
	not lib.gpu_reported(silent)
}

test_architecture if {
	lib.architecture_denials("GH100") == set() with input as host.input
	found := lib.architecture_denials("GB100") with input as good.input
	{d.code | some d in found} == {"GPU_ARCH"}
}

# ---------- weights

test_nothing_declared if "MODEL_UNDECLARED" in denied({"/weights/declared": []})

test_nothing_loaded if denied({"/weights/loaded": []}) == {"MODEL_NOT_LOADED"}

test_an_adapter_need_not_be_loaded if {
	adapter := {"manifest": model, "name": "adapter", "role": "adapter"}
	denied({"/weights/declared": [adapter], "/weights/loaded": []}) == set()
	changes := {"/weights/declared": array.concat(good.input.weights.declared, [adapter])}
	lib.sound with input as changed(good.input, changes) with data.reference as good.reference
}

test_loaded_and_not_declared if {
	denied({"/weights/loaded/0/declared": false}) == {"MODEL_UNDECLARED"}
	denied({"/weights/loaded/0/manifest": other}) == {"MODEL_NOT_LOADED", "MODEL_UNDECLARED", "REFERENCE_ABSENT"}
}

test_an_unknown_model if {
	denied({"/weights/declared/0/manifest": other, "/weights/loaded/0/manifest": other}) == {"REFERENCE_ABSENT"}
}

test_other_weights if {
	place := {"file": "a", "tensor": "t", "kind": "tensor", "expected": "aa", "got": "bb"}
	denied({"/weights/differences": [place]}) == {"WEIGHTS_MISMATCH"}
	denied({"/weights/differences": {}}) == {"POLICY_ERROR", "WEIGHTS_MISMATCH"}
}

test_a_beginning_that_nobody_explains if denied({"/weights/baseline": "none"}) == {"BASELINE_UNEXPLAINED"}

test_which_model_is_served if {
	served := model
	another := other
	lib.model_is(served) with input as good.input
	not lib.model_is(another) with input as good.input
	both := {served, another}
	lib.only_models(both) with input as good.input
	wrong := {another}
	not lib.only_models(wrong) with input as good.input
	not lib.only_models(both) with input as changed(good.input, {"/weights/loaded": []})
}

test_files_are_bound if {
	lib.load_bound(good.input.weights.loaded[0])
	unbound := emulated.input.weights.loaded[0]
	not lib.load_bound(unbound)
}

test_spot_checks if {
	lib.spot_answered with input as good.input
	lost := changed(good.input, {"/weights/spot_check/status": "not_issued"})
	not lib.spot_answered with input as lost
	said := {w.code | some w in lib.remarks} with input as lost
	said == {"SPOT_POOL_EMPTY"}
}

accepted := {"models": {model: {
	"name": "m", "owner": "lab", "set": "s", "not_before": "1970-01-01T00:00:00Z", "not_after": "2200-01-01T00:00:00Z",
	"statements": [
		{"type": "t", "issuer": "i", "date": "1970-01-01T00:00:00Z", "digest": "d"},
		{"type": "early", "issuer": "i", "date": "2200-01-01T00:00:00Z", "digest": "e"},
	],
}}}

test_owners_and_statements if {
	declared := good.input.weights.declared[0]
	lib.owned(declared, "lab") with data.reference as accepted
	not lib.owned(declared, "another") with data.reference as accepted
	lib.statement(declared, "t", "i") with data.reference as accepted
	not lib.statement(declared, "u", "i") with data.reference as accepted
	lib.statement_within(declared, "t", "i", 100000) with data.reference as accepted
	not lib.statement_within(declared, "early", "i", 100000) with data.reference as accepted
}

# ---------- telemetry

# The example whose GPU's record is in its baseline, with these members of the record replaced for the GPU and for all.
record(values) := object.union(measured.input, {"telemetry": {
	"verdict": object.get(values, "verdict", "in_baseline"),
	"sources": measured.input.telemetry.sources,
	"devices": [object.union(measured.input.telemetry.devices[0], values)],
}})

# What every policy denies it with, and what it lacks of proof.
contradictions(values) := found if {
	found := {d | some d in lib.always} with input as record(values) with data.reference as measured.reference
}

lacking(values) := found if {
	found := {d | some d in lib.unproven_denials({{"check": "platform_tcb"}}, lib.checks)} with input as record(values)
		with data.reference as measured.reference
}

codes(denials) := {d.code | some d in denials}

found_energy := {
	"check": "energy", "channel": "power", "verdict": "implausible",
	"expected": "4120 J to 4180 J", "got": "3700 J",
}

test_the_record_contradicts if {
	denied({"/telemetry/verdict": "implausible"}) == {"TELEMETRY_IMPLAUSIBLE"}
	denied({"/telemetry/verdict": "out_of_baseline"}) == {"TELEMETRY_OUT_OF_BASELINE"}
	denied({"/telemetry/verdict": "a word of tomorrow"}) == {"TELEMETRY_OUT_OF_BASELINE"}
}

test_a_record_in_its_baseline if {
	contradictions({}) == set()
	lacking({}) == set()
	lib.telemetry_in_baseline with input as measured.input
}

test_a_record_out_of_its_baseline_says_how_far if {
	found := contradictions({"verdict": "out_of_baseline", "score": 5200, "e_log10_milli": 2310, "residual_mw": 48000, "why": "lag1 and mean of power"})
	codes(found) == {"TELEMETRY_OUT_OF_BASELINE"}
	some d in found
	d.device == measured.input.gpus[0].identity
	endswith(d.message, "lag1 and mean of power")
	d.got == "score 5200, evidence 2310 (both in thousandths); 48000 mW beyond what the work explains, give or take 2600 mW"
	d.expected == sprintf("score at most 1940, by baseline %v", [measured.input.telemetry.devices[0].baseline])
	object.get(d, "sticks", "said by nobody") == "said by nobody"
	codes(lacking({"verdict": "out_of_baseline"})) == {"TELEMETRY_OUT_OF_BASELINE"}
	{e.hint | some e in lacking({"verdict": "out_of_baseline"})} == {lib.telemetry_hint}
}

test_a_record_that_cannot_be_names_check_and_channel if {
	found := contradictions({"verdict": "implausible", "findings": [found_energy]})
	codes(found) == {"TELEMETRY_IMPLAUSIBLE"}
	some d in found
	d.message == "the GPU's physical record cannot be: energy of power"
	[d.expected, d.got] == ["4120 J to 4180 J", "3700 J"]
	codes(lacking({"verdict": "implausible"})) == {"TELEMETRY_IMPLAUSIBLE"}
}

test_a_record_that_cannot_be_with_no_finding_that_says_so if {
	failed := object.union(found_energy, {"verdict": "unusable"})
	found := contradictions({"verdict": "implausible", "findings": [failed], "why": "it said so before"})
	codes(found) == {"TELEMETRY_IMPLAUSIBLE"}
	{d.message | some d in found} == {"the GPU's physical record cannot be: it said so before"}
}

# Nothing but the length of the record is missing: that is the only denial, and no policy that leaves the check out has it.
test_a_record_that_is_too_short if {
	contradictions({"verdict": "unusable"}) == set()
	found := lacking({"verdict": "unusable", "why": "the first unit of samples is not complete"})
	codes(found) == {"TELEMETRY_UNUSABLE"}
	some d in found
	d.got == "the first unit of samples is not complete"
	d.message == "telemetry_baseline is not proven: the first unit of samples is not complete"
	d.device == measured.input.gpus[0].identity
	startswith(d.hint, "wait")
}

# Of two GPUs, the one that the word over all of them comes from.
test_which_gpu_is_without_a_baseline if {
	short := object.union(measured.input.telemetry.devices[0], {"verdict": "unusable", "why": "4.0 of 10 s sampled"})
	foreign := object.union(short, {"device": other, "verdict": "no_baseline", "why": "the baseline is of another driver"})
	two := json.patch(measured.input, [
		{"op": "replace", "path": "/telemetry/devices", "value": [short, foreign]},
		{"op": "replace", "path": "/telemetry/verdict", "value": "no_baseline"},
	])
	found := lib.unproven_denials({{"check": "platform_tcb"}}, lib.checks) with input as two with data.reference as measured.reference
	{[d.code, d.device, d.got] | some d in found} == {["TELEMETRY_NO_BASELINE", other, "the baseline is of another driver"]}
}

test_a_record_without_a_baseline if {
	contradictions({"verdict": "no_baseline"}) == set()
	codes(lacking({"verdict": "no_baseline", "why": null})) == {"TELEMETRY_NO_BASELINE"}
	{d.got | some d in lacking({"verdict": "no_baseline", "why": null})} == {"unproven"}
}

# One device speaks against the host, whatever the word over all of them is.
test_one_device_is_enough if {
	word := json.patch(record({"verdict": "out_of_baseline"}), [{"op": "replace", "path": "/telemetry/verdict", "value": "in_baseline"}])
	found := codes(lib.always) with input as word with data.reference as measured.reference
	found == {"TELEMETRY_OUT_OF_BASELINE"}
	not lib.sound with input as word with data.reference as measured.reference
}

# What is said of one GPU says nothing of another.
test_a_gpu_of_which_nothing_is_recorded if {
	second := object.union(measured.input.gpus[0], {"identity": other})
	two := json.patch(measured.input, [{"op": "add", "path": "/gpus/-", "value": second}])
	not lib.telemetry_in_baseline with input as two
	none := json.patch(measured.input, [{"op": "replace", "path": "/telemetry/devices", "value": []}])
	not lib.telemetry_in_baseline with input as none
	codes(lib.unproven_denials({{"check": "platform_tcb"}}, lib.checks)) == {"TELEMETRY_NO_BASELINE"} with input as none
		with data.reference as measured.reference
	linked := json.patch(measured.input, [{"op": "add", "path": "/gpus/-", "value": host.input.gpus[8]}])
	lib.telemetry_in_baseline with input as linked
}

test_work_between_sessions_is_noticed if {
	between := {"device": "ab", "session": "cd", "gap_s": 60, "energy_mj": 9000000, "idle_mj": 7200000}
	idle := object.union(between, {"energy_mj": 7000000})
	anew := object.union(between, {"energy_mj": null})
	said := [remark | some remark in lib.remarks; remark.code == "TELEMETRY_UNREPORTED"] with input as {"telemetry": {"unreported": [between, idle, anew]}}
	{remark.message | some remark in said} == {
		"GPU ab used 9000000 mJ in the 60 s before this session, and an idle one uses 7200000 mJ",
		"the energy counter of GPU ab began anew in the 60 s before this session: what it used is not known",
	}
}

test_channels if {
	device := good.input.gpus[0].identity
	lib.measured(device, "power") with input as good.input
	lib.measured(null, "utilisation") with input as good.input
	not lib.measured(null, "power") with input as good.input
}

test_sensors_of_software if refused({"/telemetry/sources/0/platform": "insecure-emulated"}) == {"PLATFORM_EMULATED"}

# ---------- proof

test_the_checks_are_those_that_may_be_left_out if lib.checks == object.keys(lib.excusable)

test_what_is_proven if {
	proven({}) == {"attester_code", "boot_reference", "gpu_revocation", "host_binding", "load_binding", "secure_boot"}
	"platform_tcb" in proven({"/platform/tee/alias_check": "complete"})
	everything := lib.proven with input as json.patch(measured.input, [{"op": "replace", "path": "/platform/tee/alias_check", "value": "complete"}])
		with data.reference as measured.reference
	everything == lib.checks
	"platform_tcb" in proven({"/platform/tee/kind": "tdx", "/platform/tee/tcb_status": "UpToDate"})
}

test_a_tpm_of_its_own_is_believed if {
	found := lib.proven with input as host.input with data.reference as host.reference
	found & {"boot_reference", "platform_tcb"} == {"boot_reference", "platform_tcb"}
}

test_what_is_not_proven if {
	found := lib.unproven with input as emulated.input with data.reference as emulated.reference
	found == {"attester_code", "boot_reference", "gpu_revocation", "host_binding", "load_binding", "secure_boot", "telemetry_baseline"}
}

test_one_signer_of_whom_nothing_is_known if {
	found := proven({"/gpus/0/manifests/0/revocation": "absent"})
	not "gpu_revocation" in found
}

test_reasons if {
	written := good.reference.unchecked.platform_tcb
	lib.reason("platform_tcb") == written with data.reference as good.reference
	not lib.reason("platform_tcb") with data.reference as emulated.reference
	entries := lib.excused(lib.checks) with input as good.input with data.reference as good.reference
	{entry.check | some entry in entries} == {"platform_tcb", "telemetry_baseline"}
	lib.excused({"secure_boot"}) == set() with input as good.input with data.reference as good.reference
	lib.excused(lib.checks) == set() with input as good.input
		with data.reference as {"unchecked": {"platform_tcb": "too short", "telemetry_baseline": "          "}}
}

test_what_to_do_about_what_is_not_proven if {
	found := {d.got: d.hint | some d in lib.unproven_denials(set(), {"platform_tcb"}); d.message == "platform_tcb is not proven"} with input as good.input
	found == {"unproven": "prove it; or, if you accept that, write the reason into reference.unchecked.platform_tcb"}
	strict := {d.hint | some d in lib.unproven_denials(set(), set())} with input as good.input
	strict == {"prove it: the policy takes no reason for leaving it out"}
}

test_doubts if {
	lib.doubts == set() with input as good.input
	kinds({"/weights/spot_check/status": "not_issued"}) == {"spot_check"}
	kinds({"/gpus/0/revocation": "stale"}) == {"reattest"}
	kinds({"/platform/tee/revocation": "stale"}) == {"reattest"}
}

kinds(values) := found if {
	found := {o.kind | some o in lib.doubts} with input as changed(good.input, values)
}
