/* A driver that does what a text file says: libnvidia-ml.so.1 for tests of the real bindings.
 *
 * FAKE_NVML names the file, read anew at every question. A line is a key, a space and a value:
 *
 *   cards 2                    how many there are
 *   driver_version 580.95      as NVML tells it
 *   lost_after 3               so many answers about cards, then NVML_ERROR_GPU_IS_LOST until
 *                              the next nvmlInit
 *   error.FUNCTION 9           what the function returns, for every card
 *   0.uuid GPU-...             of card 0; 0.mig1.uuid is of its MIG instance in slot 1
 *   0.error.FUNCTION 3         what the function returns for that card or instance
 *   0.util_pct 50              and so on: see the functions. What is not said is 0.
 *   0.mig_slots 7, 0.mig 1     slots that may hold instances; those with a uuid do
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, GPU_IS_LOST = 15 };
enum { CARDS = 8, SLOTS = 8 };

typedef struct {
    char name[16]; /* as the file names it */
    int card, slot; /* slot -1: the whole card */
} Device;

static Device devices[CARDS][SLOTS + 1];
static int users, answers;

/* The file's value of `key` into `value`; 0 where it has none. */
static int look_up(const char *key, char *value, size_t size) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    int found = 0;
    size_t length = strlen(key);
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, key, length) == 0 && line[length] == ' ') {
            line[strcspn(line, "\n")] = '\0';
            snprintf(value, size, "%s", line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static long long number(const char *key, long long otherwise) {
    char value[200];
    return look_up(key, value, sizeof value) ? strtoll(value, NULL, 0) : otherwise;
}

static int text_of(const Device *device, const char *field, char *value, size_t size) {
    char key[64];
    snprintf(key, sizeof key, "%s.%s", device->name, field);
    return look_up(key, value, size);
}

static long long number_of(const Device *device, const char *field) {
    char key[64];
    snprintf(key, sizeof key, "%s.%s", device->name, field);
    return number(key, 0);
}

static Device *device_at(int card, int slot) {
    Device *device = &devices[card][slot + 1];
    device->card = card;
    device->slot = slot;
    if (slot < 0) snprintf(device->name, sizeof device->name, "%d", card);
    else snprintf(device->name, sizeof device->name, "%d.mig%d", card, slot);
    return device;
}

/* Whether a function may answer at all, and about a device. */
static int driver(const char *function) {
    char key[96];
    if (!users) return UNINITIALIZED;
    snprintf(key, sizeof key, "error.%s", function);
    return (int)number(key, OK);
}

static int about(const Device *device, const char *function) {
    char key[96];
    int error = driver(function);
    long long lost_after = number("lost_after", -1);
    if (error) return error;
    if (lost_after >= 0 && answers >= lost_after) return GPU_IS_LOST;
    answers++;
    snprintf(key, sizeof key, "%s.error.%s", device->name, function);
    return (int)number(key, OK);
}

#define ASK(device) do { int error_ = about(device, __func__); if (error_) return error_; } while (0)

int nvmlInitWithFlags(unsigned flags) {
    char key[] = "error.nvmlInitWithFlags";
    int error = (int)number(key, OK);
    (void)flags;
    if (!error) { users++; answers = 0; }
    return error;
}

int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    return OK;
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    int error = driver(__func__);
    if (error) return error;
    return look_up("driver_version", version, size) ? OK : NOT_FOUND;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    int error = driver(__func__);
    if (!error) *count = (unsigned)number("cards", 0);
    return error;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) {
    int error = driver(__func__);
    if (error) return error;
    if (index >= (unsigned)number("cards", 0)) return INVALID_ARGUMENT;
    *device = device_at((int)index, -1);
    return OK;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **device) {
    int error = driver(__func__);
    if (error) return error;
    for (int card = 0; card < number("cards", 0); card++) {
        for (int slot = -1; slot < SLOTS; slot++) {
            char own[96];
            Device *candidate = device_at(card, slot);
            if (text_of(candidate, "uuid", own, sizeof own) && strcmp(own, uuid) == 0) {
                *device = candidate;
                return OK;
            }
        }
    }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned size) {
    ASK(device);
    return text_of(device, "uuid", uuid, size) ? OK : NOT_FOUND;
}

int nvmlDeviceGetName(Device *device, char *name, unsigned size) {
    ASK(device);
    return text_of(device, "name", name, size) ? OK : NOT_FOUND;
}

int nvmlDeviceGetUtilizationRates(Device *device, unsigned *gpu_memory) {
    ASK(device);
    gpu_memory[0] = (unsigned)number_of(device, "util_pct");
    gpu_memory[1] = (unsigned)number_of(device, "memory_busy_pct");
    return OK;
}

int nvmlDeviceGetMemoryInfo(Device *device, unsigned long long *total_free_used) {
    ASK(device);
    total_free_used[0] = (unsigned long long)number_of(device, "memory_total_bytes");
    total_free_used[2] = (unsigned long long)number_of(device, "memory_used_bytes");
    total_free_used[1] = total_free_used[0] - total_free_used[2];
    return OK;
}

int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    ASK(device);
    *milliwatts = (unsigned)number_of(device, "power_mw");
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *milliwatts) {
    ASK(device);
    *milliwatts = (unsigned)number_of(device, "power_limit_mw");
    return OK;
}

int nvmlDeviceGetTemperatureV(Device *device, unsigned *version_sensor_temperature) {
    ASK(device);
    version_sensor_temperature[2] = (unsigned)number_of(device, "temperature_c");
    return OK;
}

int nvmlDeviceGetTemperature(Device *device, unsigned sensor, unsigned *temperature) {
    (void)sensor;
    ASK(device);
    *temperature = (unsigned)number_of(device, "temperature_c");
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    ASK(device);
    *reasons = (unsigned long long)number_of(device, "clocks_event_reasons");
    return OK;
}

/* The newer name alone: as a driver that has dropped nvmlDeviceGetCurrentClocksThrottleReasons. */

int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    ASK(device);
    *current = *pending = (unsigned)number_of(device, "mig");
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count) {
    ASK(device);
    *count = (unsigned)number_of(device, "mig_slots");
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **instance) {
    char uuid[96];
    ASK(device);
    *instance = device_at(device->card, (int)index);
    return text_of(*instance, "uuid", uuid, sizeof uuid) ? OK : NOT_FOUND;
}

int nvmlDeviceIsMigDeviceHandle(Device *device, unsigned *is_instance) {
    ASK(device);
    *is_instance = device->slot >= 0;
    return OK;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **whole) {
    ASK(device);
    if (device->slot < 0) return INVALID_ARGUMENT;
    *whole = device_at(device->card, -1);
    return OK;
}

int nvmlDeviceGetGpuInstanceId(Device *device, unsigned *id) {
    ASK(device);
    if (device->slot < 0) return NOT_SUPPORTED;
    *id = (unsigned)number_of(device, "gpu_instance");
    return OK;
}

int nvmlDeviceGetComputeInstanceId(Device *device, unsigned *id) {
    ASK(device);
    if (device->slot < 0) return NOT_SUPPORTED;
    *id = (unsigned)number_of(device, "compute_instance");
    return OK;
}
