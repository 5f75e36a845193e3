/* All that is compiled for the instruction set ISA. */

#include "lanes.h"
#include "direct.h"
#include "regions.h"
#include "winograd.h"
