// see GuestBuildPlugin
