/* libnvidia-ml.so.1 for machines without a GPU: the symbols that nvidia-ml-py calls, with the layouts of nvml.h.
 *
 * It knows nothing. Every call is one question over the Unix socket that FAKE_NVML_SOCKET names, answered by
 * tests/fakes/nvml_shim/__init__.py: what is signed, refused, held back or made up is decided there. In host byte order:
 *
 *   question  u32 device, u32 argument, u32 length, name, 0, octets        answer  i32 return code, u32 length, octets
 *
 * A device's handle is its number plus one, so it outlives a change of order. Without a socket the driver is not loaded.
 *
 * Where FAKE_NVML_OWN is set, sensors are not asked for but made up here, so that what a caller spends is its own; its
 * value is how many microseconds the dear ones sleep.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

typedef int ret_t;
typedef struct device *dev_t_;
enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, TOO_SMALL = 7, NOT_LOADED = 9, LOST = 15, VERSION = 25, UNKNOWN = 999 };
enum { NONE = 0xffffffff, SETTINGS_VERSION = 0x1000014 };

typedef struct { unsigned environment, feature, tools; } state_t;
typedef struct { unsigned version, environment, feature, tools, multi; } settings_t;
typedef struct { unsigned cpu, gpus; } capabilities_t;
typedef struct { unsigned chain_size, attestation_size; uint8_t chain[0x1000], attestation[0x1400]; } certificate_t;
typedef struct { unsigned cec_present, size, cec_size; uint8_t nonce[32], report[0x2000], cec[0x1000]; } report_t;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned id, scope; long long timestamp, latency; unsigned type; ret_t code; uint64_t value; } field_t;
_Static_assert(sizeof(state_t) == 12 && sizeof(settings_t) == 20 && sizeof(capabilities_t) == 8, "nvml.h");
_Static_assert(sizeof(certificate_t) == 9224 && sizeof(report_t) == 12332, "nvml.h");
_Static_assert(sizeof(pci_t) == 68 && sizeof(field_t) == 40, "nvml.h");

static int initialised;

static int whole(int file, void *data, size_t size, int sending) {
    for (size_t done = 0; done < size;) {
        ssize_t n = sending ? send(file, (char *)data + done, size - done, MSG_NOSIGNAL)
                            : recv(file, (char *)data + done, size - done, 0);
        if (n <= 0) return 0;
        done += (size_t)n;
    }
    return 1;
}

/* One question; at most `room` octets of the answer are kept in `out`, `*got` is how many came. */
static ret_t ask_raw(const char *name, uint32_t device, uint32_t argument, const void *in, uint32_t length, void *out,
                     uint32_t room, uint32_t *got) {
    const char *path = getenv("FAKE_NVML_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint32_t head[3] = {device, argument, length}, answer[2];
    static const uint8_t nothing;
    uint8_t dropped;
    ret_t code = UNKNOWN;
    if (!path || strlen(path) >= sizeof address.sun_path) return NOT_LOADED;
    strcpy(address.sun_path, path);
    int file = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (file < 0) return UNKNOWN;
    if (connect(file, (struct sockaddr *)&address, sizeof address) != 0) {
        close(file);
        return NOT_LOADED;
    }
    if (whole(file, head, sizeof head, 1) && whole(file, (void *)name, strlen(name) + 1, 1) &&
        whole(file, (void *)(in ? in : &nothing), length, 1) && whole(file, answer, sizeof answer, 0)) {
        uint32_t kept = answer[1] < room ? answer[1] : room;
        int complete = whole(file, out, kept, 0);
        for (uint32_t n = kept; complete && n < answer[1]; n++) complete = whole(file, &dropped, 1, 0);
        if (complete) {
            code = (ret_t)answer[0];
            *got = answer[1];
        }
    }
    close(file);
    return code;
}

static ret_t ask(const char *name, uint32_t device, uint32_t argument, void *out, uint32_t size) {
    uint32_t got = 0;
    if (!initialised) return UNINITIALIZED;
    ret_t code = ask_raw(name, device, argument, NULL, 0, out, size, &got);
    return code == OK && got != size ? UNKNOWN : code;
}

static ret_t ask_text(const char *name, uint32_t device, char *out, uint32_t room) {
    uint32_t got = 0;
    if (!initialised) return UNINITIALIZED;
    if (room == 0) return TOO_SMALL;
    ret_t code = ask_raw(name, device, 0, NULL, 0, out, room - 1, &got);
    if (code == OK && got > room - 1) return TOO_SMALL;
    if (code == OK) out[got] = 0;
    return code;
}

static uint32_t number_of(dev_t_ device) { return (uint32_t)(uintptr_t)device - 1; }

#define SYSTEM_TEXT(name) ret_t name(char *out, unsigned room) { return ask_text(#name, NONE, out, room); }
#define TEXT(name) ret_t name(dev_t_ d, char *out, unsigned room) { return ask_text(#name, number_of(d), out, room); }
#define SYSTEM(name, type) ret_t name(type *out) { return ask(#name, NONE, 0, out, sizeof *out); }
#define VALUE(name, type) ret_t name(dev_t_ d, type *out) { return ask(#name, number_of(d), 0, out, sizeof *out); }
#define CHOSEN(name, type) \
    ret_t name(dev_t_ d, unsigned which, type *out) { return ask(#name, number_of(d), which, out, sizeof *out); }

ret_t nvmlInitWithFlags(unsigned flags) {
    uint32_t got = 0;
    ret_t code = ask_raw("nvmlInit", NONE, flags, NULL, 0, NULL, 0, &got);
    if (code == OK) initialised++;
    return code;
}
ret_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
ret_t nvmlShutdown(void) {
    uint32_t got = 0;
    if (!initialised) return UNINITIALIZED;
    ret_t code = ask_raw("nvmlShutdown", NONE, 0, NULL, 0, NULL, 0, &got);
    if (code == OK) initialised--;
    return code;
}
const char *nvmlErrorString(ret_t code) { return code == OK ? "Success" : "Refused by the shim"; }

SYSTEM_TEXT(nvmlSystemGetDriverVersion)
SYSTEM_TEXT(nvmlSystemGetNVMLVersion)
SYSTEM(nvmlDeviceGetCount_v2, unsigned)
SYSTEM(nvmlSystemGetConfComputeState, state_t)
SYSTEM(nvmlSystemGetConfComputeCapabilities, capabilities_t)
SYSTEM(nvmlSystemGetConfComputeGpusReadyState, unsigned)
ret_t nvmlSystemSetConfComputeGpusReadyState(unsigned state) {
    return ask("nvmlSystemSetConfComputeGpusReadyState", NONE, state, NULL, 0);
}
ret_t nvmlSystemGetConfComputeSettings(settings_t *out) {
    if (out->version != SETTINGS_VERSION) return VERSION;
    return ask("nvmlSystemGetConfComputeSettings", NONE, 0, &out->environment, sizeof *out - sizeof out->version);
}

ret_t nvmlDeviceGetHandleByIndex_v2(unsigned index, dev_t_ *out) {
    uint32_t number = 0;
    ret_t code = ask("nvmlDeviceGetHandleByIndex_v2", NONE, index, &number, sizeof number);
    if (code == OK) *out = (dev_t_)(uintptr_t)(number + 1);
    return code;
}
TEXT(nvmlDeviceGetName)
TEXT(nvmlDeviceGetUUID)
TEXT(nvmlDeviceGetSerial)
TEXT(nvmlDeviceGetVbiosVersion)
TEXT(nvmlDeviceGetBoardPartNumber)
VALUE(nvmlDeviceGetBoardId, unsigned)
VALUE(nvmlDeviceGetArchitecture, unsigned)
VALUE(nvmlDeviceGetPersistenceMode, unsigned)
VALUE(nvmlDeviceGetPciInfo_v3, pci_t)

ret_t nvmlDeviceGetConfComputeGpuCertificate(dev_t_ d, certificate_t *out) {
    struct { uint32_t size; uint8_t data[sizeof out->attestation]; } answer = {0};
    uint32_t got = 0;
    if (!initialised) return UNINITIALIZED;
    memset(out, 0, sizeof *out);
    ret_t code = ask_raw("nvmlDeviceGetConfComputeGpuCertificate", number_of(d), 0, NULL, 0, &answer, sizeof answer, &got);
    out->attestation_size = answer.size;
    memcpy(out->attestation, answer.data, sizeof answer.data);
    return code;
}
ret_t nvmlDeviceGetConfComputeGpuAttestationReport(dev_t_ d, report_t *out) {
    struct { uint32_t size; uint8_t data[sizeof out->report]; } answer = {0};
    uint32_t got = 0;
    if (!initialised) return UNINITIALIZED;
    ret_t code = ask_raw("nvmlDeviceGetConfComputeGpuAttestationReport", number_of(d), 0, out->nonce, sizeof out->nonce,
                         &answer, sizeof answer, &got);
    out->cec_present = out->cec_size = 0;
    out->size = answer.size;
    memcpy(out->report, answer.data, sizeof answer.data);
    return code;
}

/* Made up: a load of about 500 W that is never twice the same, and counters that begin anew. */
static const char *own(void) { return getenv("FAKE_NVML_OWN"); }
static void dear(void) { usleep((useconds_t)atoi(own())); }
static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#define SENSOR(name, type, made) \
    ret_t name(dev_t_ d, type *out) { \
        if (!own()) return ask(#name, number_of(d), 0, out, sizeof *out); \
        made; \
        return initialised ? OK : UNINITIALIZED; \
    }
#define CHOSEN_SENSOR(name, type, made) \
    ret_t name(dev_t_ d, unsigned which, type *out) { \
        if (!own()) return ask(#name, number_of(d), which, out, sizeof *out); \
        made; \
        return initialised ? OK : UNINITIALIZED; \
    }
SENSOR(nvmlDeviceGetPowerUsage, unsigned, *out = 500000 + (unsigned)(now_ns() / 1000 % 4001))
SENSOR(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, (dear(), *out = now_ns() / 2000000))
SENSOR(nvmlDeviceGetEnforcedPowerLimit, unsigned, *out = 700000)
SENSOR(nvmlDeviceGetUtilizationRates, utilization_t, (out->gpu = 90 + (unsigned)(now_ns() / 1000 % 10), out->memory = 40))
SENSOR(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, *out = 4)
CHOSEN_SENSOR(nvmlDeviceGetTemperature, unsigned, *out = 60 + (unsigned)(now_ns() / 1000000000u % 3))
CHOSEN_SENSOR(nvmlDeviceGetClockInfo, unsigned, *out = which == 1 ? 1980 - 15 * (unsigned)(now_ns() / 1000 % 4) : 2619)
static void made_field(field_t *field) {
    enum { U32 = 1, MEMORY_TEMPERATURE = 82 };
    uint64_t now = now_ns();
    field->timestamp = (long long)(now / 1000);
    field->type = U32;
    field->value = field->id == MEMORY_TEMPERATURE ? 51 : field->id < 190 ? 500000 + now / 1000 % 4001 : now & NONE;
    field->code = OK;
}
ret_t nvmlDeviceGetFieldValues(dev_t_ d, int count, field_t *fields) {
    if (own() && count > 0 && fields[0].id >= 190) dear();
    for (int n = 0; n < count; n++) {
        struct { int64_t timestamp, latency; uint64_t value; uint32_t type, unused; } answer = {0};
        uint32_t question[2] = {fields[n].id, fields[n].scope}, got = 0;
        if (!initialised) return UNINITIALIZED;
        if (own()) {
            made_field(&fields[n]);
            continue;
        }
        ret_t code = ask_raw("nvmlDeviceGetFieldValues", number_of(d), fields[n].id, question, sizeof question, &answer,
                             sizeof answer, &got);
        if (code == LOST) return code;
        fields[n].timestamp = answer.timestamp;
        fields[n].latency = answer.latency;
        fields[n].type = answer.type;
        fields[n].value = answer.value;
        fields[n].code = code;
    }
    return OK;
}

/* GPM with its trap: of two samples less than 100 ms apart it makes NaN, without an error. */
typedef struct { uint32_t device; uint64_t at; } sample_t;
typedef struct { unsigned version, supported; } support_t;
typedef struct { unsigned id; ret_t code; double value; const char *texts[3]; } metric_t;
typedef struct { unsigned version, count; sample_t *first, *second; metric_t metrics[]; } metrics_t;
_Static_assert(sizeof(metric_t) == 40 && sizeof(metrics_t) == 24, "nvml.h");
ret_t nvmlGpmQueryDeviceSupport(dev_t_ d, support_t *out) {
    if (out->version != 1) return VERSION;
    return ask("nvmlGpmQueryDeviceSupport", number_of(d), 0, &out->supported, sizeof out->supported);
}
ret_t nvmlGpmSampleAlloc(sample_t **out) { return (*out = calloc(1, sizeof **out)) ? OK : UNKNOWN; }
ret_t nvmlGpmSampleFree(sample_t *sample) { free(sample); return OK; }
ret_t nvmlGpmSampleGet(dev_t_ d, sample_t *sample) {
    sample->device = number_of(d);
    sample->at = now_ns();
    return own() ? OK : ask("nvmlGpmSampleGet", sample->device, 0, NULL, 0);
}
ret_t nvmlGpmMetricsGet(metrics_t *out) {
    if (out->version != 1) return VERSION;
    if (own()) dear();
    for (unsigned n = 0; n < out->count; n++) {
        metric_t *metric = &out->metrics[n];
        metric->value = (double)(now_ns() / 1000 % 101);
        metric->code = OK;
        if (out->second->at - out->first->at < 100000000u) metric->value = NAN;
        else if (!own())
            metric->code = ask("nvmlGpmMetricsGet", out->second->device, metric->id, &metric->value, sizeof metric->value);
    }
    return OK;
}
