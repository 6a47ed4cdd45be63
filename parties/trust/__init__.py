"""What two organisations need to believe each other: keys, signatures, certificates, invitations."""
